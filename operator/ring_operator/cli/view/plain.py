"""Plain lines, about one a second, for logs and pipes."""

from __future__ import annotations

import time

from rich.console import Console

from ring_operator.cli.view.progress import Progress, duration, plan_line, preparation_line, rings_line
from ring_operator.cli.view.summary import print_outcome, short
from ring_operator.local.events import Event, Outcome, Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.local.folder import RunFolder
from ring_operator.plan import ParallelPlan
from ring_worker.contract import MetricsLine

_SECONDS_BETWEEN = 1.0


class PlainView:
    """Says each change of phase at once, and steps at most once a second; the last step always."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._said = 0.0
        self._waiting: MetricsLine | None = None  # came too soon after the line before
        self._preparation = ""

    def begin(self, plan: ParallelPlan, folder: RunFolder) -> None:
        self._say(f"{plan.job}: {plan_line(plan)}")
        self._say(f"run folder: {short(folder.path)}")
        for note in plan.notes:
            self._say(f"note: {note}")

    def tell(self, event: Event) -> None:
        self._progress.add(event)
        match event:
            case Preparing():
                self._say_preparation()
            case Stepped(line):
                self._step(line)
            case Started() | Stopping():
                self._flush()
                self._say(self._progress.phase)
            case Restarting(decision):
                self._flush()
                self._say(f"restart: {decision.message}")

    def end(self) -> None:
        self._flush()

    def finish(self, outcome: Outcome, folder: RunFolder) -> None:
        print_outcome(self._console, outcome, folder)

    def _say_preparation(self) -> None:
        preparation = self._progress.preparation
        text = "preparing the data" + (f": {preparation_line(preparation)}" if preparation else "")
        first = preparation is not None and ":" not in self._preparation
        if text != self._preparation and (first or not self._preparation or self._due()):
            self._preparation = text
            self._said = time.monotonic()
            self._say(text)

    def _step(self, line: MetricsLine) -> None:
        self._waiting = line
        if self._due() or line.heldout_bits_per_byte is not None:
            self._flush()

    def _due(self) -> bool:
        return time.monotonic() - self._said >= _SECONDS_BETWEEN

    def _flush(self) -> None:
        if self._waiting is not None:
            self._said = time.monotonic()
            self._say(self._step_line(self._waiting))
            self._waiting = None

    def _step_line(self, line: MetricsLine) -> str:
        parts = [f"step {line.step}/{line.total_steps}", f"loss {line.loss:.3f}"]
        parts.append(f"{line.tokens_per_second:,.0f} tokens/s")
        if rings := rings_line(line):
            parts.append(f"ring efficiency {rings}")
        if line.heldout_bits_per_byte is not None:
            parts.append(f"held out {line.heldout_bits_per_byte:.3f} bits per byte")
        if (left := self._progress.seconds_left()) is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)
