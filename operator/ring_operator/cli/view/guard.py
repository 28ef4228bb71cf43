"""A view whose reader may go away: a closed terminal, a pipe into `head`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ring_operator.cli.view import Home, View
from ring_operator.local.events import Event, Outcome
from ring_operator.plan import ParallelPlan


class GuardedView:
    """Passes everything on until that fails; then `gone` is called once, and nothing is shown any more.

    rich leaves by SystemExit when its pipe is broken.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.is_gone = False
        self.gone: Callable[[], None] = lambda: None

    def begin(self, plan: ParallelPlan, home: Home) -> None:
        self._pass_on(self._view.begin, plan, home)

    def tell(self, event: Event) -> None:
        self._pass_on(self._view.tell, event)

    def end(self) -> None:
        self._pass_on(self._view.end)

    def finish(self, outcome: Outcome, home: Home) -> None:
        self._pass_on(self._view.finish, outcome, home)

    def _pass_on(self, method: Callable[..., None], *arguments: Any) -> None:
        if self.is_gone:
            return
        try:
            method(*arguments)
        except (OSError, SystemExit):
            self.is_gone = True
            self.gone()
