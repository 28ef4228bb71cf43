"""Exit codes of ranks, data preparation and agent, and the environment that carries the documents' places."""

from __future__ import annotations

import enum

# Environment of a container of the job, set by `render`, read by the agent and the data preparation.
ENV_CONFIG = "RING_CONFIG"  # file with the RunConfig
ENV_RANKS = "RING_RANKS"  # file with the RankTable; absent until the first epoch is published
ENV_POD = "RING_POD"  # this pod's name, a member of the RankTable
ENV_AFTER_EPOCH = "RING_AFTER_EPOCH"  # rank tables up to this epoch are not for this pod; 0 where it is not set
ENV_STATUS_ADDRESS = "RING_STATUS_ADDRESS"  # host:port on which the agent serves /status, /metrics and /stacks

# Environment of a rank, set by the agent, beside torch's RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
ENV_EPOCH = "RING_EPOCH"
ENV_RESTARTS = "RING_RESTARTS"
ENV_TOKEN = "RING_TOKEN"
ENV_TELEMETRY = "RING_TELEMETRY"  # inherited descriptor of a datagram socket (one JSON object a datagram)
ENV_STACKS = "RING_STACKS"  # inherited descriptor of a file, to which the stacks go when the agent asks


class ExitCode(enum.IntEnum):
    """What a rank, the data preparation or the agent says by its exit code."""

    DONE = 0
    INVALID_CONFIG = 64  # never retried
    CORRUPT_DATA = 65  # data or checkpoint; never retried
    APPLICATION = 70
    INFRASTRUCTURE = 75  # retried outside the application budget
    RESTART = 88  # the rank asks for a restart
    NO_RESTART = 93  # the rank asks not to be restarted
    TERMINATED = 143  # SIGTERM obeyed, checkpoint saved

    @property
    def retryable(self) -> bool:
        """Whether a new epoch can help."""
        return self not in (ExitCode.DONE, ExitCode.INVALID_CONFIG, ExitCode.CORRUPT_DATA, ExitCode.NO_RESTART)


def likely_cause(exit_code: int) -> int:
    """Sort key over failures that were seen together: the one that brought the others about comes first.

    A rank that loses a peer ends a moment later with INFRASTRUCTURE, so that says least; a signal (negative) or a code
    that forbids a retry cannot be an echo.
    """
    if exit_code in (ExitCode.INVALID_CONFIG, ExitCode.CORRUPT_DATA, ExitCode.NO_RESTART):
        return 0
    if exit_code < 0:
        return 1
    return 3 if exit_code in (ExitCode.INFRASTRUCTURE, ExitCode.TERMINATED) else 2
