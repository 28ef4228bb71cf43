"""How a run is shown, here or on a cluster: live on a terminal, as plain lines elsewhere, as JSON lines for programs.

All three are told the same events. `progress` adds them up for people. What differs between a run folder and a job on a
cluster is a `Home`: where the run is, and what can be said of it at the end.
"""

from __future__ import annotations

from typing import Any, Protocol

from rich.console import Console

from ring_operator.local.events import Event, Outcome
from ring_operator.plan import ParallelPlan


class Home(Protocol):
    """Where a run lives. `kind` and `name` for people: `folder`, `runs/a`."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    def place(self) -> dict[str, Any]:
        """For programs: fields that say where it is."""
        ...

    def checkpoint_step(self) -> int | None: ...
    def report(self) -> dict[str, Any] | None:
        """report.json, where it can be read from here."""
        ...

    def print_outcome(self, console: Console, outcome: Outcome) -> None: ...


class View(Protocol):
    """`begin`, then `tell` for each event, then `end` in any case, then `finish` if the run came to an end."""

    def begin(self, plan: ParallelPlan, home: Home) -> None: ...
    def tell(self, event: Event) -> None: ...
    def end(self) -> None: ...
    def finish(self, outcome: Outcome, home: Home) -> None: ...
