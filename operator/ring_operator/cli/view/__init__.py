"""How a local run is shown: live on a terminal, as plain lines elsewhere, as JSON lines for programs.

All three are told the same events. `progress` adds them up for people; `summary` says at the end what came of it.
"""

from __future__ import annotations

from typing import Protocol

from ring_operator.local.events import Event, Outcome
from ring_operator.local.folder import RunFolder
from ring_operator.plan import ParallelPlan


class View(Protocol):
    """`begin`, then `tell` for each event, then `end` in any case, then `finish` if the run came to an end."""

    def begin(self, plan: ParallelPlan, folder: RunFolder) -> None: ...
    def tell(self, event: Event) -> None: ...
    def end(self) -> None: ...
    def finish(self, outcome: Outcome, folder: RunFolder) -> None: ...
