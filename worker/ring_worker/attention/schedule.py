"""What each rank computes in each step of the ring, and which keys travel on: pure, no torch.

In: a layout and a mask. Out: for one rank, a `Step` for each turn of the ring. In step s rank r holds the keys of
rank (r - s) mod N; it computes the runs of that step and meanwhile passes on the range of keys that a later rank
still needs. The ring stops turning after the last step in which any rank has work, so an aligned chunked-local mask
sends nothing and a short window only its neighbours' keys. In the backward pass the gradients of travelling keys
follow one step behind them, in the range that has been touched so far, and go home from the last rank that used them.

A rank's positions ascend and a mask's bounds never decrease, hence a query's keys are one interval of the *source's
own index*, whatever the layout; neighbouring rows whose bounds move by 0 or 1 a row are one `Run`, which a kernel
computes as a rectangle, a triangle or a band. Indices are of tokens in a shard; ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ring_worker.attention.layout import Layout, Range
from ring_worker.attention.masks import Mask

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """Query rows `start .. stop`; row start + i sees the keys `[lo + i * lo_step, hi + i * hi_step)`, never none.

    Steps are 0 or 1: (0, 0) is a rectangle, (0, 1) a rectangle and a triangle, (1, 1) a band.
    """

    start: int
    stop: int
    lo: int
    hi: int
    lo_step: int
    hi_step: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def keys(self) -> Range:
        """The keys that any of the rows sees."""
        return Range(self.lo, self.hi + (self.rows - 1) * self.hi_step)

    @property
    def pairs(self) -> int:
        """Unmasked (query, key) pairs."""
        n = self.rows
        return n * (self.hi - self.lo) + (self.hi_step - self.lo_step) * n * (n - 1) // 2


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the ring for one rank.

    `source`: owner of the keys that are held. `send` goes to the next rank while `runs` are computed, `receive` comes
    from the one before (keys of the next step's source); both are ranges of that owner's keys, None for nothing.
    Backward: `return_receive` is the range of this source's gradients that arrives from the rank before, `return_send`
    the range that goes on (or home, after the last step) once this step's own share is added.
    """

    source: int
    runs: tuple[Run, ...]
    send: Range | None
    receive: Range | None
    return_send: Range | None
    return_receive: Range | None

    @property
    def pairs(self) -> int:
        return sum(run.pairs for run in self.runs)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All steps of one rank; every rank has as many. `home`: what comes back to this rank at the end."""

    rank: int
    ranks: int
    steps: tuple[Step, ...]
    home: Range | None

    @property
    def pairs(self) -> int:
        return sum(step.pairs for step in self.steps)


@lru_cache(maxsize=256)
def schedule(layout: Layout, mask: Mask, rank: int) -> Schedule:
    """The steps of `rank`. The same for every layer and step with this layout and mask, hence cached."""
    n = layout.ranks
    hulls = _hulls(layout, mask)
    last = max(s for s in range(n) if s == 0 or any(hulls[r][(r - s) % n] for r in range(n)))
    steps = tuple(_step(layout, mask, hulls, rank, s, last) for s in range(last + 1))
    return Schedule(rank, n, steps, _touched(hulls, rank, last) if last else None)


def _step(layout: Layout, mask: Mask, hulls: Hulls, rank: int, s: int, last: int) -> Step:
    n = layout.ranks
    source = (rank - s) % n
    return Step(
        source=source,
        runs=runs(*key_bounds(layout, mask, rank, source)) if hulls[rank][source] else (),
        send=_needed(hulls, source, s + 1, last),
        receive=_needed(hulls, (source - 1) % n, s + 1, last),
        return_send=_touched(hulls, source, s) if s else None,
        return_receive=_touched(hulls, source, s - 1) if s > 1 else None,
    )


def _needed(hulls: Hulls, source: int, first: int, last: int) -> Range | None:
    """Keys of `source` that ranks first .. last steps down the ring still read."""
    n = len(hulls)
    return _union([hulls[(source + s) % n][source] for s in range(first, last + 1)])


def _touched(hulls: Hulls, source: int, last: int) -> Range | None:
    """Keys of `source` for which ranks 1 .. last steps down the ring have made gradients."""
    n = len(hulls)
    return _union([hulls[(source + s) % n][source] for s in range(1, last + 1)])


def _union(ranges: Sequence[Range | None]) -> Range | None:
    given = [r for r in ranges if r]
    return Range(min(r.start for r in given), max(r.stop for r in given)) if given else None


Hulls = list[list[Range | None]]


@lru_cache(maxsize=64)
def _hulls(layout: Layout, mask: Mask) -> Hulls:
    """[rank][source] -> the smallest range of the source's keys that holds all that the rank reads; None for none.

    Every query sees at least itself, so the keys of a range of queries are one interval of positions, from what the
    first one sees to what the last one sees: the borders of the ranges are enough.
    """
    return [_hulls_of(layout, mask, rank) for rank in range(layout.ranks)]


def _hulls_of(layout: Layout, mask: Mask, rank: int) -> list[Range | None]:
    ranges = layout.ranges(rank)
    if not ranges:
        return [None] * layout.ranks
    lo, _ = mask.bounds(np.array([r.start for r in ranges]), layout.length)
    _, hi = mask.bounds(np.array([r.stop - 1 for r in ranges]), layout.length)
    first, last = layout.counts_before(lo), layout.counts_before(hi)  # [source, range], in the source's key indices
    return [
        _union([Range(int(a), int(b)) for a, b in zip(*of_source, strict=True) if b > a])
        for of_source in zip(first, last, strict=True)
    ]


def key_bounds(layout: Layout, mask: Mask, rank: int, source: int) -> tuple[Rows, Rows]:
    """(lo, hi), each [tokens of rank]: the interval of the source's own key indices that each query of `rank` sees."""
    lo, hi = mask.bounds(layout.positions(rank), layout.length)
    keys = layout.positions(source)
    return np.searchsorted(keys, lo), np.searchsorted(keys, hi)


def runs(lo: Rows, hi: Rows) -> tuple[Run, ...]:
    """Cut rows into the fewest runs that a walk from the top finds. Rows without keys are in none."""
    count = len(lo)
    filled = hi > lo
    lo_step, hi_step = np.diff(lo), np.diff(hi)
    linear = (lo_step >= 0) & (lo_step <= 1) & (hi_step >= 0) & (hi_step <= 1) & filled[:-1] & filled[1:]
    code = np.where(linear, 2 * lo_step + hi_step, -1)
    ends = np.append(np.flatnonzero(np.diff(code)) + 1, count - 1)  # rows at which a stretch of equal codes ends
    starts = np.flatnonzero(filled)
    found = []
    row = 0
    while (at := np.searchsorted(starts, row)) < len(starts):
        row = int(starts[at])
        going = row < count - 1 and code[row] >= 0
        stop = int(ends[np.searchsorted(ends, row, side="right")]) + 1 if going else row + 1
        steps = divmod(int(code[row]), 2) if going else (0, 0)
        found.append(Run(row, stop, int(lo[row]), int(hi[row]), *steps))
        row = stop
    return tuple(found)
