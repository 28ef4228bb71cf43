"""Lines of a pod's log as the API server gives them -> those that were asked for. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_STAMPED = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Selection:
    """`tail`: the last so many lines. `rank`: of this rank alone. `prepare`: of the data preparation."""

    tail: int | None = None
    rank: int | None = None
    prepare: bool = False

    @property
    def server_tail(self) -> dict[str, int]:
        """What the API server can leave out: not for a rank, whose lines only this side knows."""
        return {"tailLines": self.tail} if self.tail is not None and self.rank is None else {}


@dataclass(frozen=True, slots=True)
class Stamped:
    """`time`: when the line was printed, as text that sorts by time; empty where it is not known."""

    time: str
    text: str


def stamped(line: str) -> Stamped:
    found = _STAMPED.fullmatch(line)
    return Stamped(_sortable(found["time"]), found["text"]) if found else Stamped("", line)


def _sortable(time: str) -> str:
    """The kubelet leaves out the zeros at the end of the fraction."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction:<09}".replace(" ", "0")


def selected(lines: Iterable[Stamped], selection: Selection) -> Iterator[Stamped]:
    """Lines of the rank, without its prefix; all, where none is asked for."""
    if selection.rank is None:
        yield from lines
        return
    prefix = f"[rank {selection.rank}] "
    for line in lines:
        if line.text.startswith(prefix):
            yield Stamped(line.time, line.text.removeprefix(prefix))


def last(lines: Iterable[Stamped], count: int | None) -> Iterator[Stamped]:
    yield from lines if count is None else deque(lines, maxlen=count)
