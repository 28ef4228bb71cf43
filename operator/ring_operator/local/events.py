"""What happens in a run, here or on a cluster, for whoever shows it: a terminal, a log, a program."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.observe import Failure
from ring_operator.status.document import Progress, RingStatus
from ring_worker.contract import MetricsLine, PreparationProgress


@dataclass(frozen=True, slots=True)
class Preparing:
    """`progress` None: nothing is known of it yet."""

    progress: PreparationProgress | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job on a cluster does not train yet, or not any more; `message` says what it waits for."""

    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """Ranks were told to start. `restarts`: failures behind this epoch, over all starts of the run."""

    epoch: int
    ranks: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """A line of metrics.jsonl."""

    line: MetricsLine


@dataclass(frozen=True, slots=True)
class Advanced:
    """What a job's status says of its progress, which is less than a line of metrics.jsonl does."""

    epoch: int
    progress: Progress
    rings: tuple[RingStatus, ...]


@dataclass(frozen=True, slots=True)
class Restarting:
    """`failure` None: not known here, but for what `message` says."""

    message: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """A stop was asked; ranks have `grace_seconds` to save a checkpoint."""

    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `exit_code` is that of `ringctl`; `log`: of the container that failed."""

    exit_code: int
    message: str
    failure: Failure | None = None
    log: str = ""


Event = Preparing | Waiting | Started | Stepped | Advanced | Restarting | Stopping
