"""What the worker says back: the agent's status, a line of metrics.jsonl, the progress of the data preparation.

Written by the worker, read by `ringctl` and the operator; nothing here is ever read back as state by the worker but the
metrics, from which the report at the end is made.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from ring_worker.contract.strict import VERSION, dump, load


class AgentState(enum.StrEnum):
    WAITING = "waiting"  # no rank table of a new epoch yet
    RUNNING = "running"
    BROKEN = "broken"  # a rank of this pod died in `epoch`; waits for the next one
    SUCCEEDED = "succeeded"
    STOPPING = "stopping"  # SIGTERM arrived; ranks save a checkpoint


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """One pod's state, as `GET /status` gives it.

    `epoch` 0: none yet. `step` is the last finished one (-1: none), `progress_age_seconds` the time since then or since
    the start of the epoch. `failed_rank` and on tell of the first rank that failed in this epoch; `exit_code` is the
    process's own (negative: killed by that signal), `error` the last lines it printed. `metrics`: the newest logged
    step of this epoch, from the pod of rank 0 alone.
    """

    pod: str
    job_uid: str
    epoch: int
    state: str
    step: int
    progress_age_seconds: float
    checkpoint_step: int
    failed_rank: int | None = None
    exit_code: int | None = None
    error: str = ""
    metrics: MetricsLine | None = None
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "AgentStatus")


@dataclass(frozen=True, slots=True)
class RingFigures:
    """One ring over the steps since the line before: seconds summed over its ranks and over forward and backward.

    `ideal_seconds`: the unmasked FLOPs at the calibrated rate of the isolated kernel. `imbalance`: largest wall of a
    rank / mean wall. `probed_rows`: of attention, computed again densely, of which `probe_mismatches` differed.
    """

    index: int
    wall_seconds: float
    compute_seconds: float
    comm_seconds: float
    exposed_seconds: float
    skew_seconds: float
    ideal_seconds: float
    bytes: int
    imbalance: float
    probed_rows: int = 0
    probe_mismatches: int = 0

    @property
    def efficiency(self) -> float | None:
        """ideal / wall: the headline. None where no attention ran."""
        return self.ideal_seconds / self.wall_seconds if self.wall_seconds > 0 else None

    @property
    def hidden_ratio(self) -> float | None:
        """Share of the transfers that compute hid, 1 - (exposed - skew) / comm: a peer that is late is no transfer.

        None where nothing was sent.
        """
        if self.comm_seconds <= 0:
            return None
        return 1 - min(1.0, max(0.0, self.exposed_seconds - self.skew_seconds) / self.comm_seconds)

    @property
    def exposed_fraction(self) -> float | None:
        """exposed / wall; None where no attention ran."""
        return self.exposed_seconds / self.wall_seconds if self.wall_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """One line of metrics.jsonl: a logged step, by rank 0. Steps count from 1; `step` is finished.

    `loss`: mean nats per valid token, over all ranks, of this step. `tokens`: trained since the job's first step.
    `seconds`: training time since the job's first step, restarts and evaluation left out.
    `tokens_per_second`: over the steps since the line before. `heldout_bits_per_byte`: where this step was evaluated.
    """

    step: int
    total_steps: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    seconds: float
    tokens_per_second: float
    epoch: int
    rings: tuple[RingFigures, ...]
    heldout_bits_per_byte: float | None = None
    version: int = VERSION

    def to_json(self) -> str:
        """One line, without line breaks."""
        return dump(self, indent=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "MetricsLine")


@dataclass(frozen=True, slots=True)
class PreparationProgress:
    """Written by the data preparation, about once a second, to `progress.json` in the folder of the prepared data."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int
    skipped: int
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "PreparationProgress")
