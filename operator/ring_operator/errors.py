"""What is wrong with what a user wrote, said once and shown the same everywhere.

A `Fault` is one thing to mend: the field's path, the arithmetic, the way out. Checks return or yield faults and carry
on, so that a person sees all of them at once; whoever cannot go on raises one `UserError` with all of them. `ringctl`
prints it and ends with its `exit_code`, the operator makes a condition of it; neither ever shows a traceback for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`path`: the field (`spec.context.length`), empty where the whole document is meant. `where`: `file:line`."""

    path: str
    message: str
    remedy: str = ""
    where: str = ""

    @property
    def line(self) -> str:
        """Everything but the remedy, on one line."""
        return ": ".join(part for part in (self.where, self.path, self.message) if part)

    def __str__(self) -> str:
        return f"{self.line}\n  {self.remedy}" if self.remedy else self.line


class UserError(Exception):
    """A request that cannot be met, with every fault that was found. Its text is meant for the user as it stands."""

    exit_code = 1  # of `ringctl`

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


def refuse(path: str, message: str, remedy: str = "") -> UserError:
    """The error of a single fault."""
    return UserError([Fault(path, message, remedy)])
