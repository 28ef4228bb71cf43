"""What happens in a local run, for whoever shows it: a terminal, a log, a program."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.observe import Failure
from ring_operator.reconcile import Decision
from ring_worker.contract import MetricsLine, PreparationProgress


@dataclass(frozen=True, slots=True)
class Preparing:
    """`progress` None: nothing is known of it yet."""

    progress: PreparationProgress | None


@dataclass(frozen=True, slots=True)
class Started:
    """Ranks were told to start. `restarts`: failures behind this epoch, over all starts of the run."""

    epoch: int
    ranks: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Stepped:
    line: MetricsLine


@dataclass(frozen=True, slots=True)
class Restarting:
    decision: Decision


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


Event = Preparing | Started | Stepped | Restarting | Stopping
