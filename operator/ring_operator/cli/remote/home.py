"""A job on a cluster as the `Home` of a run: where it is, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from ring_operator.cli.remote import words
from ring_operator.cli.remote.options import Exit
from ring_operator.cli.view.progress import duration
from ring_operator.cli.view.summary import printable
from ring_operator.local.events import Outcome
from ring_operator.observe.pods import seconds_of
from ring_operator.remote.objects import JobSeen
from ring_operator.status.document import Progress

_TITLES = {Exit.REFUSED: "Invalid", Exit.FAILED: "Failed", Exit.NOT_FOUND: "Gone"}


class ClusterHome:
    """`seen`: the newest look."""

    kind = "job"

    def __init__(self, job: JobSeen) -> None:
        self.seen = job

    @property
    def name(self) -> str:
        return f"{self.seen.name} in namespace {self.seen.namespace}"

    def place(self) -> dict[str, Any]:
        return {"namespace": self.seen.namespace, "job": self.seen.name}

    def checkpoint_step(self) -> int | None:
        step = self._progress.last_checkpoint_step
        return step if step >= 0 else None

    def report(self) -> dict[str, Any] | None:
        """It lies on the job's volume, where only its pods can read it."""
        return None

    def print_outcome(self, console: Console, outcome: Outcome) -> None:
        if outcome.exit_code == Exit.OK:
            console.print(Text.assemble(("Done: ", "bold green"), self._headline()), soft_wrap=True)
        else:
            title = _TITLES.get(Exit(outcome.exit_code), "Failed")
            console.print(Text.assemble((f"{title}: ", "bold red"), printable(outcome.message)), soft_wrap=True)
        for label, value in self._rows(outcome):
            console.print(Text.assemble((f"  {label:<12}", "dim"), value), soft_wrap=True)

    @property
    def _progress(self) -> Progress:
        return self.seen.status.progress or Progress()

    def _headline(self) -> str:
        progress, status = self._progress, self.seen.status
        took = seconds_of(status.completion_time) - seconds_of(status.start_time)
        time = f" in {duration(took)}" if status.start_time and took >= 0 else ""
        restarts = status.restarts.total
        again = f", {restarts} restart{'s' if restarts != 1 else ''}" if restarts else ""
        return f"{progress.step:,} steps, {progress.tokens:,} tokens{time}{again}"

    def _rows(self, outcome: Outcome) -> Iterator[tuple[str, str]]:
        progress, where = self._progress, f"{self.seen.name} -n {self.seen.namespace}"
        if outcome.exit_code == Exit.OK and progress.loss is not None:
            yield "loss", f"{progress.loss:.3f}"
        if (step := self.checkpoint_step()) is not None:
            yield "checkpoint", f"of step {step:,}"
        for ring in self.seen.status.rings:
            if ring.efficiency is not None:
                yield f"ring {ring.index}", f"efficiency {ring.efficiency:.2f}, {words.ring_nodes(ring)}"
        if outcome.exit_code == Exit.FAILED:
            yield "why", f"ringctl logs {where}"
            yield "again", f"ringctl restart {where}"
