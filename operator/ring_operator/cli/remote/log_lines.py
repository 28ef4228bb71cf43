"""Lines of a pod's log as the API server gives them -> those that were asked for. Pure."""

from __future__ import annotations

import datetime
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_STAMPED = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.(?P<fraction>\d{1,9}))?(?P<zone>Z|[+-]\d\d:\d\d) (?P<text>.*)",
    re.DOTALL,
)


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
    return Stamped(_sortable(found), found["text"]) if found else Stamped("", line)


def _sortable(found: re.Match[str]) -> str:
    """In UTC, with nine digits behind the point: nodes write their own zone, and may leave out zeros at the end."""
    try:
        moment = datetime.datetime.fromisoformat(found["second"] + found["zone"]).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{(found['fraction'] or '').ljust(9, '0')}"


def second_of(time: str) -> str:
    """A line's time as the API server takes it, to the second."""
    return f"{time.partition('.')[0]}Z"


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
