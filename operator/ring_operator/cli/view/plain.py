"""Plain lines, about one a second, for logs and pipes."""

from __future__ import annotations

import time

from rich.console import Console

from ring_operator.cli.view import Home
from ring_operator.cli.view.progress import Progress, Step, duration, plan_line, preparation_line, rings_line
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
from ring_operator.plan import ParallelPlan

_SECONDS_BETWEEN = 1.0


class PlainView:
    """Says each change of phase at once, and steps at most once a second; the last step always."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._said = 0.0
        self._waiting: Step | None = None  # came too soon after the line before
        self._preparation = ""

    def begin(self, plan: ParallelPlan, home: Home) -> None:
        self._say(f"{plan.job}: {plan_line(plan)}")
        self._say(f"{home.kind}: {home.name}")
        for note in plan.notes:
            self._say(f"note: {note}")

    def tell(self, event: Event) -> None:
        self._progress.add(event)
        match event:
            case Preparing():
                self._say_preparation()
            case Stepped() | Advanced():
                self._step(self._progress.lines[-1])
            case Started() | Stopping():
                self._flush()
                self._say(self._progress.phase)
            case Waiting(message):
                self._flush()
                self._say(message)
            case Restarting(message):
                self._flush()
                self._say(f"restart: {message}")

    def end(self) -> None:
        self._flush()

    def finish(self, outcome: Outcome, home: Home) -> None:
        home.print_outcome(self._console, outcome)

    def _say_preparation(self) -> None:
        preparation = self._progress.preparation
        text = "preparing the data" + (f": {preparation_line(preparation)}" if preparation else "")
        first = preparation is not None and ":" not in self._preparation
        if text != self._preparation and (first or not self._preparation or self._due()):
            self._preparation = text
            self._said = time.monotonic()
            self._say(text)

    def _step(self, step: Step) -> None:
        self._waiting = step
        if self._due() or step.heldout is not None:
            self._flush()

    def _due(self) -> bool:
        return time.monotonic() - self._said >= _SECONDS_BETWEEN

    def _flush(self) -> None:
        if self._waiting is not None:
            self._said = time.monotonic()
            self._say(self._step_line(self._waiting))
            self._waiting = None

    def _step_line(self, step: Step) -> str:
        parts = [f"step {step.step}/{step.total_steps}"]
        if step.loss is not None:
            parts.append(f"loss {step.loss:.3f}")
        if step.tokens_per_second is not None:
            parts.append(f"{step.tokens_per_second:,.0f} tokens/s")
        if rings := rings_line(step):
            parts.append(f"ring efficiency {rings}")
        if step.heldout is not None:
            parts.append(f"held out {step.heldout:.3f} bits per byte")
        if (left := self._progress.seconds_left()) is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)
