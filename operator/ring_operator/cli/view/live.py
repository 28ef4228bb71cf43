"""A few lines on a terminal that keep up with the run."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ring_operator.cli.view import Home
from ring_operator.cli.view.progress import Progress, duration, plan_line, preparation_line, rings_line, sparkline
from ring_operator.local.events import Advanced, Event, Outcome, Preparing, Stepped
from ring_operator.plan import ParallelPlan

_BAR_WIDTH = 40
_SECONDS_BETWEEN = 0.2


class LiveView:
    """Drawn by the thread that tells, a few times a second, so that nothing changes while it is drawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._title = Text()
        self._place = ("", "")
        self._drawn = 0.0
        self._live = Live(console=console, get_renderable=self._table, auto_refresh=False)

    def begin(self, plan: ParallelPlan, home: Home) -> None:
        for note in plan.notes:
            self._console.print(Text.assemble(("note ", "yellow"), note))
        self._title = Text.assemble((plan.job, "bold"), "  ", (plan_line(plan), "dim"))
        self._place = (home.kind, home.name)
        self._live.start()

    def tell(self, event: Event) -> None:
        self._progress.add(event)
        if not isinstance(event, Stepped | Advanced | Preparing) or time.monotonic() - self._drawn >= _SECONDS_BETWEEN:
            self._drawn = time.monotonic()
            self._live.refresh()

    def end(self) -> None:
        self._live.stop()

    def finish(self, outcome: Outcome, home: Home) -> None:
        home.print_outcome(self._console, outcome)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        outer = Table.grid()
        outer.add_row(self._title)
        for label, value in self._rows():
            table.add_row(label, value)
        outer.add_row(table)
        return outer

    def _rows(self) -> Iterator[tuple[str, RenderableType]]:
        progress = self._progress
        yield "", Text(progress.phase, "italic")
        if progress.newest is None and (preparation := progress.preparation) is not None:
            yield "data", _bar(preparation.bytes, preparation.total_bytes, preparation_line(preparation))
        yield from self._training()
        if progress.restarts or progress.trouble:
            yield "restarts", Text(f"{progress.restarts}  {progress.trouble}", "yellow")
        yield self._place[0], Text(self._place[1])

    def _training(self) -> Iterator[tuple[str, RenderableType]]:
        progress, newest = self._progress, self._progress.newest
        if newest is None:
            return
        left = progress.seconds_left()
        remaining = f", {duration(left)} left" if left is not None else ""
        yield "step", _bar(newest.step, newest.total_steps, f"{newest.step:,} of {newest.total_steps:,}{remaining}")
        losses = [each.loss for each in progress.lines if each.loss is not None]
        if losses:
            yield "loss", Text.assemble(f"{losses[-1]:.3f}  ", (sparkline(losses, _BAR_WIDTH), "cyan"))
        if progress.heldout:
            step, bits = progress.heldout[-1]
            yield "held out", Text(f"{bits:.3f} bits per byte (step {step:,})")
        rings = rings_line(newest)
        parts = [f"{newest.tokens_per_second:,.0f} tokens/s"] if newest.tokens_per_second is not None else []
        if parts := [*parts, *([f"ring efficiency {rings}"] if rings else [])]:
            yield "speed", Text(", ".join(parts))


def _bar(done: float, total: float, text: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=max(total, 1), completed=done, width=_BAR_WIDTH), Text(text))
    return grid
