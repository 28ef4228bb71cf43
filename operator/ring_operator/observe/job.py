"""Looks at all pods of a job -> `Observed`: states, and failures of the epoch that runs."""

from __future__ import annotations

import dataclasses
import enum
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from ring_operator.observe.failures import Failure, FailureClass
from ring_operator.observe.looks import PodLook
from ring_worker.contract import AgentState, AgentStatus, ExitCode

_SHELL_SIGNAL = 128  # a shell and a container runtime say 128 + signal


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
    """The rank table as far as decisions need it: the epoch that runs or is to be published next, and which of both."""

    epoch: int = 1
    published: bool = False

    def publish(self) -> Table:
        return Table(self.epoch, published=True)

    def withdraw(self) -> Table:
        """An epoch is never published twice: what was told of it may still be running somewhere."""
        return Table(self.epoch + 1) if self.published else self


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
        """Every agent answers and would take up a new rank table."""
        return all(pod.state in (PodState.WAITING, PodState.RUNNING, PodState.BROKEN) for pod in self.pods)

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
    failure = Failure(look.name, None, _plain(look.exit_code), look.error, reason=look.reason, blame=look.blame)
    return PodSeen(look.name, PodState.ENDED, failure=failure)


def _rank_failure(pod: str, status: AgentStatus) -> Failure | None:
    if status.state != AgentState.BROKEN:
        return None
    return Failure(pod, status.failed_rank, status.exit_code, status.error)


def _plain(exit_code: int | None) -> int | None:
    """137 -> -9: a signal the way Popen gives it. 143 stays: it is also a program's own word."""
    if exit_code is None or exit_code == ExitCode.TERMINATED or not 0 < exit_code - _SHELL_SIGNAL < signal.NSIG:
        return exit_code
    return _SHELL_SIGNAL - exit_code
