"""What was seen of a job's pods -> `Observed`, the only thing that decisions are made from.

In: for each pod the end of its process (if it ended) and its agent's status (if it answered), wherever they come from:
pods of a cluster or processes of this machine. Out: frozen values, with failures told apart by what can be done about
them. A failure counts for the epoch in which it happened: an agent that still speaks of an older one says nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from ring_worker.contract import AgentState, AgentStatus, ExitCode, likely_cause

_SHELL_SIGNAL = 128  # a shell and a container runtime say 128 + signal


class FailureClass(enum.StrEnum):
    """What a failure asks for."""

    FINAL = "final"  # the same would happen again
    APPLICATION = "application"
    INFRASTRUCTURE = "infrastructure"  # not the program's fault: killed, cut off, gone


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an epoch ended. `exit_code`: negative when killed by that signal; None: vanished, or it hangs.

    `rank` None: the pod itself failed. `error`: the last lines it printed.
    """

    pod: str
    rank: int | None = None
    exit_code: int | None = None
    error: str = ""
    stalled_seconds: float = 0.0
    silent_seconds: float = 0.0
    behind_seconds: float = 0.0

    @property
    def kind(self) -> FailureClass:
        code = self.exit_code
        if code in (ExitCode.INVALID_CONFIG, ExitCode.CORRUPT_DATA, ExitCode.NO_RESTART):
            return FailureClass.FINAL
        if code is None or code < 0 or code in (ExitCode.INFRASTRUCTURE, ExitCode.TERMINATED):
            return FailureClass.INFRASTRUCTURE
        return FailureClass.APPLICATION

    @property
    def weight(self) -> int:
        """Sort key: smaller is more likely the cause of the others."""
        return likely_cause(-signal.SIGKILL if self.exit_code is None else self.exit_code)

    @property
    def who(self) -> str:
        return self.pod if self.rank is None else f"rank {self.rank} in {self.pod}"

    def __str__(self) -> str:
        if self.stalled_seconds:
            return f"{self.who} made no progress for {self.stalled_seconds:.0f} s"
        if self.silent_seconds:
            return f"the agent of {self.who} did not answer for {self.silent_seconds:.0f} s"
        if self.behind_seconds:
            return f"the agent of {self.who} answers, but took up no rank table for {self.behind_seconds:.0f} s"
        if self.exit_code is None:
            return f"{self.who} vanished"
        if self.exit_code < 0:
            return f"{self.who} was killed by {_signal_name(-self.exit_code)}"
        return f"{self.who} ended with exit code {self.exit_code}{_meaning(self.exit_code)}"


class PodState(enum.StrEnum):
    PREPARING = "preparing"  # before its agent: volumes, image, data
    STARTING = "starting"  # the agent's container runs and has not answered yet
    WAITING = "waiting"
    RUNNING = "running"
    BROKEN = "broken"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    ENDED = "ended"  # its process is gone, and not because all was done


@dataclass(frozen=True, slots=True)
class PodLook:
    """One pod as somebody saw it. `ended`: its process is gone, with `exit_code` if that is known.

    `silent_seconds`: since its agent answered last, or since it was started. `table_seconds`: for how long it could
    have read the newest rank table. `error`: the last lines of an ended pod.
    """

    name: str
    preparing: bool = False
    ended: bool = False
    exit_code: int | None = None
    status: AgentStatus | None = None
    silent_seconds: float = 0.0
    table_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """`failure` only where it happened in the published epoch (or before the first). `step` -1: none yet.

    `behind_seconds`: for how long there has been a newer rank table than the one it knows.
    """

    name: str
    state: PodState
    epoch: int = 0
    step: int = -1
    progress_age_seconds: float = 0.0
    silent_seconds: float = 0.0
    behind_seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What must outlive every pod: the budget spent, and the newest checkpoints (steps; -1: none).

    `without_progress`: restarts in a row that brought no checkpoint newer than `checkpoint_at_restart`.
    """

    application: int = 0
    infrastructure: int = 0
    without_progress: int = 0
    checkpoint_step: int = -1
    checkpoint_at_restart: int = -1

    @property
    def restarts(self) -> int:
        return self.application + self.infrastructure

    @property
    def fruitless(self) -> int:
        """Restarts in a row without a newer checkpoint, counted now."""
        return 0 if self.checkpoint_step > self.checkpoint_at_restart else self.without_progress

    def restarted(self, kind: FailureClass) -> History:
        """The history with one more restart."""
        return dataclasses.replace(
            self,
            application=self.application + (kind is FailureClass.APPLICATION),
            infrastructure=self.infrastructure + (kind is FailureClass.INFRASTRUCTURE),
            without_progress=self.fruitless + 1,
            checkpoint_at_restart=self.checkpoint_step,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The rank table as far as decisions need it. `published`: it is there for the pods of now.

    A job that goes on after a pause has an epoch, and no table for its new pods yet.
    """

    epoch: int = 0
    published: bool = False

    def next(self) -> Table:
        return Table(self.epoch + 1, published=True)


@dataclass(frozen=True, slots=True)
class Observed:
    """All pods of one job."""

    table: Table
    pods: tuple[PodSeen, ...]
    history: History

    @property
    def succeeded(self) -> bool:
        return all(pod.state is PodState.SUCCEEDED for pod in self.pods)

    @property
    def ready(self) -> bool:
        """Every agent waits for a rank table."""
        return all(pod.state is PodState.WAITING for pod in self.pods)

    @property
    def without_agent(self) -> tuple[str, ...]:
        """Pods whose process is gone, done or not: they take part again only in a new one."""
        return tuple(pod.name for pod in self.pods if pod.state in (PodState.ENDED, PodState.SUCCEEDED))

    @property
    def cause(self) -> Failure | None:
        """Of the failures there are, the one that likely brought the others about."""
        failures = [pod.failure for pod in self.pods if pod.failure is not None]
        return min(failures, key=lambda failure: failure.weight, default=None)

    def stall(self, limit_seconds: float) -> Failure | None:
        """An agent that is mute, or deaf to the table; or a whole job without a step: ranks wait for each other."""
        for pod in self.pods:
            if pod.silent_seconds > limit_seconds:
                return Failure(pod.name, silent_seconds=pod.silent_seconds)
            if pod.behind_seconds > limit_seconds:
                return Failure(pod.name, behind_seconds=pod.behind_seconds)
        running = [pod for pod in self.pods if pod.state is PodState.RUNNING and pod.epoch == self.table.epoch]
        done = sum(pod.state is PodState.SUCCEEDED for pod in self.pods)
        last = min(running, key=lambda pod: pod.progress_age_seconds, default=None)
        if last is None or len(running) + done < len(self.pods) or last.progress_age_seconds <= limit_seconds:
            return None
        return Failure(last.name, stalled_seconds=last.progress_age_seconds)


def observe(looks: Iterable[PodLook], table: Table, history: History) -> Observed:
    """`table` and `history`: of the decision before."""
    looks = tuple(looks)
    newest = max((look.status.checkpoint_step for look in looks if look.status), default=-1)
    history = dataclasses.replace(history, checkpoint_step=max(history.checkpoint_step, newest))
    return Observed(table, tuple(_pod(look, table) for look in looks), history)


def _pod(look: PodLook, table: Table) -> PodSeen:
    if look.ended:
        return _ended(look)
    if look.preparing:
        return PodSeen(look.name, PodState.PREPARING)
    if look.status is None:
        return PodSeen(look.name, PodState.STARTING, silent_seconds=look.silent_seconds)
    status = look.status
    return PodSeen(
        name=look.name,
        state=PodState(status.state),
        epoch=status.epoch,
        step=status.step,
        progress_age_seconds=status.progress_age_seconds,
        silent_seconds=look.silent_seconds,
        behind_seconds=look.table_seconds if table.published and status.epoch < table.epoch else 0.0,
        failure=_rank_failure(look.name, status) if status.epoch == table.epoch else None,
    )


def _ended(look: PodLook) -> PodSeen:
    if look.exit_code == ExitCode.DONE:
        return PodSeen(look.name, PodState.SUCCEEDED)
    return PodSeen(look.name, PodState.ENDED, failure=Failure(look.name, None, _plain(look.exit_code), look.error))


def _rank_failure(pod: str, status: AgentStatus) -> Failure | None:
    if status.state != AgentState.BROKEN:
        return None
    return Failure(pod, status.failed_rank, status.exit_code, status.error)


def _plain(exit_code: int | None) -> int | None:
    """137 -> -9: a signal the way Popen gives it. 143 stays: it is also a program's own word."""
    if exit_code is None or exit_code == ExitCode.TERMINATED or not 0 < exit_code - _SHELL_SIGNAL < signal.NSIG:
        return exit_code
    return _SHELL_SIGNAL - exit_code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _meaning(exit_code: int) -> str:
    try:
        return f" ({ExitCode(exit_code).name.lower().replace('_', ' ')})"
    except ValueError:
        return ""
