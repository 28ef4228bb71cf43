"""One JSON object a line, for programs. `event` says which; the fields of a step are those of metrics.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from ring_operator.cli.view import Home
from ring_operator.local.events import (
    Advanced,
    Event,
    Outcome,
    Preparing,
    Restarting,
    Started,
    Stepped,
    Stopping,
    Waiting,
)
from ring_operator.observe import Failure
from ring_operator.plan import ParallelPlan, document


class JsonView:
    """`write` gets each line, without its line break."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last = ""

    def begin(self, plan: ParallelPlan, home: Home) -> None:
        self._put("planned", **home.place(), plan=document(plan))

    def tell(self, event: Event) -> None:
        match event:
            case Preparing(progress):
                fields = {} if progress is None else _fields(progress)
                self._put("preparing", **fields)
            case Waiting(message):
                self._put("waiting", message=message)
            case Started(epoch, ranks, restarts):
                self._put("started", epoch=epoch, ranks=ranks, restarts=restarts)
            case Stepped(line):
                efficiency = [ring.efficiency for ring in line.rings]
                self._put("step", **_fields(line), ring_efficiency=efficiency)
            case Advanced(epoch, progress, rings):
                efficiency = [ring.efficiency for ring in rings]
                self._put("step", **progress.model_dump(), epoch=epoch, ring_efficiency=efficiency)
            case Restarting(message, failure):
                self._put("restart", message=message, failure=_failure(failure))
            case Stopping(grace_seconds):
                self._put("stopping", grace_seconds=grace_seconds)

    def end(self) -> None:
        """Nothing is kept back."""

    def finish(self, outcome: Outcome, home: Home) -> None:
        self._put(
            "finished",
            exit_code=int(outcome.exit_code),
            message=outcome.message,
            failure=_failure(outcome.failure),
            log=outcome.log or None,
            checkpoint_step=home.checkpoint_step(),
            report=home.report() if outcome.exit_code == 0 else None,
        )

    def _put(self, event: str, **fields: Any) -> None:
        """What is as before (a preparation that has not moved) is not said again."""
        line = json.dumps({"event": event, **fields})
        if line != self._last:
            self._last = line
            self._write(line)


def _fields(value: Any) -> dict[str, Any]:
    return {name: each for name, each in dataclasses.asdict(value).items() if name != "version"}


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "pod": failure.pod,
        "rank": failure.rank,
        "exit_code": failure.exit_code,
        "class": str(failure.kind),
        "error": failure.error,
    }
