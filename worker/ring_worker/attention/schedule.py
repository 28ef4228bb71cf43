"""What each rank computes in each step of the ring, and what travels meanwhile: pure, no torch.

In: whose attention is asked for, a route, and what moves: keys (with values) or, in a backward pass, queries. Out: for
one rank, a `Step` for each turn. A rank meets the moving tokens of one source a step. It receives just those of them
that it reads, once, and so the bytes sent are the least that any exact schedule can send: what the rank before has read
too comes from there, one hop away; the rest comes from its owner. So a causal zigzag ring does not carry late chunks
past ranks that cannot see them (a quarter of a plain ring's bytes), a window asks its neighbours only, an aligned
chunk asks nobody, and packed documents share what crosses a border.

Gradients of moving tokens follow one step behind: each rank adds its share to the sum that comes from the rank before
and passes on what the next one adds to as well; the rest goes home to its owner. At the end of an inner round all of it
does. Thus a sum crosses each link of a chain once, in an order that is always the same.

A rank's positions ascend, so a term of the mask gives each query one interval of the *source's own index*, whatever the
layout; neighbouring rows whose bounds move by 0 or 1 a row are one `Run`, which a kernel computes as a rectangle, a
triangle or a band. Indices are of tokens in a shard; ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from ring_worker.attention.layout import Range
from ring_worker.attention.needs import Asked, Needs, key_needs, query_needs
from ring_worker.attention.ranges import Ranges, common, tokens, without
from ring_worker.attention.route import Route

Rows = npt.NDArray[np.int64]
Moving = Literal["keys", "queries"]


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
class Parcel:
    """Ranges of one owner's tokens, to or from the rank `peer`."""

    peer: int
    ranges: Ranges


Parcels = tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Posted together. `held`: sent from the tokens that this rank met last; `own`: from its own; `received`."""

    held: Parcels = ()
    own: Parcels = ()
    received: Parcels = ()

    @property
    def sent(self) -> int:
        """Tokens."""
        return sum(tokens(parcel.ranges) for parcel in (*self.held, *self.own))


@dataclass(frozen=True, slots=True)
class Returns:
    """Gradient sums, posted together.

    Of the source before, `passed` goes on to the next rank and `home` to its owner. `arriving` is the sum so far of
    this step's source; `returning` is of this rank's own tokens, from a rank that has read them.
    """

    passed: Parcels = ()
    home: Parcels = ()
    arriving: Parcels = ()
    returning: Parcels = ()

    @property
    def sent(self) -> int:
        """Tokens."""
        return sum(tokens(parcel.ranges) for parcel in (*self.passed, *self.home))


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the ring for one rank.

    `source`: owner of the moving tokens that are met, of which this rank reads the ranges `read`. `terms`: for each
    term of the mask, the runs to compute. While that happens, `next` brings what the next step reads, unless that
    starts an inner round; `round` brings what the next inner round starts with, and is awaited at the end of this one.
    Backward: `sums` follow one step behind; `round_sums` are those that left an inner round.
    """

    source: int
    read: Ranges
    terms: tuple[tuple[Run, ...], ...]
    next: Exchange = Exchange()
    round: Exchange = Exchange()
    sums: Returns = Returns()
    round_sums: Returns = Returns()
    starts_round: bool = False
    ends_round: bool = False

    @property
    def pairs(self) -> int:
        return sum(run.pairs for runs in self.terms for run in runs)


@dataclass(frozen=True)
class Schedule:
    """All steps of one rank; every rank has as many. `home`: what goes home at the end."""

    rank: int
    moving: Moving
    steps: tuple[Step, ...]
    home: Returns

    @cached_property
    def pairs(self) -> int:
        """Unmasked (query, key) pairs."""
        return sum(step.pairs for step in self.steps)

    @cached_property
    def sent(self) -> int:
        """Moving tokens that this rank sends, once for each receiver."""
        return sum(step.next.sent + step.round.sent for step in self.steps)

    @cached_property
    def returned(self) -> int:
        """Tokens whose gradient sums this rank sends."""
        return sum(step.sums.sent + step.round_sums.sent for step in self.steps) + self.home.sent


@lru_cache(maxsize=64)
def schedule(asked: Asked, rank: int, route: Route, moving: Moving = "keys") -> Schedule:
    """The steps of `rank`. The same for every layer and pass that asks for the same, hence cached."""
    return _Builder(asked, rank, route, moving).schedule()


class _Builder:
    def __init__(self, asked: Asked, rank: int, route: Route, moving: Moving) -> None:
        self._asked, self._rank, self._route, self._moving = asked, rank, route, moving
        self._needs = _needs(asked, moving)
        self._last = _last_step(asked, route, moving)

    def schedule(self) -> Schedule:
        steps = tuple(self._step(step) for step in range(self._last + 1))
        home = self._ended_round(self._last) if self._last else Returns()
        return Schedule(self._rank, self._moving, steps, home)

    def _step(self, step: int) -> Step:
        route, source = self._route, self._route.source(self._rank, step)
        starts, ends = route.starts(step), route.starts(step + 1) or step == self._last
        return Step(
            source=source,
            read=self._needs[self._rank].of(source),
            terms=tuple(self._terms(source)),
            next=Exchange() if ends else self._exchange(step + 1, step, route.before(self._rank)),
            round=self._next_round(step + route.inner, step) if starts else Exchange(),
            sums=Returns() if starts else self._sums(step),
            round_sums=self._ended_round(step - 1) if starts and step else Returns(),
            starts_round=starts,
            ends_round=ends,
        )

    def _next_round(self, step: int, now: int) -> Exchange:
        return self._exchange(step, now, self._route.across(self._rank)) if step <= self._last else Exchange()

    def _exchange(self, step: int, now: int, carrier: int) -> Exchange:
        """What the ranks will meet in `step`, sent by those that hold it `now` and by the owners."""
        route, rank = self._route, self._rank
        held = route.source(rank, now)
        taker, reader = route.visitor(held, step), route.visitor(rank, step)
        coming = route.source(rank, step)
        return Exchange(
            held=_parcels(taker, self._carried(held, rank, taker)),
            own=_parcels(reader, self._owned(rank, route.visitor(rank, now), reader)),
            received=_parcels(carrier, self._carried(coming, carrier, rank))
            + _parcels(coming, self._owned(coming, carrier, rank)),
        )

    def _carried(self, source: int, carrier: int, taker: int) -> Ranges:
        """What of the source's tokens `taker` gets from `carrier`, who has read them just before."""
        return () if carrier == source else common(self._read(carrier, source), self._read(taker, source))

    def _owned(self, source: int, carrier: int, taker: int) -> Ranges:
        """What of the source's tokens `taker` gets from the source itself."""
        return without(self._read(taker, source), self._carried(source, carrier, taker))

    def _read(self, rank: int, source: int) -> Ranges:
        return self._needs[rank].of(source)

    def _sums(self, step: int) -> Returns:
        """Posted in `step`, within an inner round: the sums of the step before go on, or home."""
        route, rank = self._route, self._rank
        source, before, met = route.source(rank, step), route.before(rank), route.source(rank, step - 1)
        last = route.visitor(rank, step - 1)  # who met this rank's tokens in the step before
        after, beyond = route.after(rank), route.after(last)
        return Returns(
            passed=_parcels(after, self._carried(met, rank, after)),
            home=() if met == rank else _parcels(met, without(self._read(rank, met), self._read(after, met))),
            arriving=_parcels(before, self._carried(source, before, rank)),
            returning=() if last == rank else _parcels(last, without(self._read(last, rank), self._read(beyond, rank))),
        )

    def _ended_round(self, step: int) -> Returns:
        """Posted after `step`, the last of an inner round: the sums go home."""
        source, last = self._route.source(self._rank, step), self._route.visitor(self._rank, step)
        if source == self._rank:
            return Returns()
        home, returning = self._read(self._rank, source), self._read(last, self._rank)
        return Returns(home=_parcels(source, home), returning=_parcels(last, returning))

    def _terms(self, source: int) -> Iterator[tuple[Run, ...]]:
        if not self._read(self._rank, source):
            return
        queries, keys = (self._rank, source) if self._moving == "keys" else (source, self._rank)
        for lo, hi in key_bounds(self._asked, queries, keys):
            if found := runs(lo, hi):
                yield found


def _needs(asked: Asked, moving: Moving) -> tuple[Needs, ...]:
    return (key_needs if moving == "keys" else query_needs)(asked)


@lru_cache(maxsize=16)
def _last_step(asked: Asked, route: Route, moving: Moving) -> int:
    """The last step in which any rank meets tokens that it reads."""
    needs = _needs(asked, moving)
    source = np.concatenate([need.source for need in needs])
    reader = np.repeat(np.arange(route.ranks), [len(need.source) for need in needs])
    outer = (reader // route.inner - source // route.inner) % (route.ranks // route.inner)
    return int((outer * route.inner + (reader - source) % route.inner).max(initial=0))


def _parcels(peer: int, ranges: Ranges) -> Parcels:
    return (Parcel(peer, ranges),) if ranges else ()


def key_bounds(asked: Asked, rank: int, source: int) -> Iterator[tuple[Rows, Rows]]:
    """For each term (lo, hi), each [queries of rank]: the interval of the source's own key indices that each sees."""
    for lo, hi in _bounds(asked, rank):
        yield asked.layout.counts_before(lo, source)[0], asked.layout.counts_before(hi, source)[0]


@lru_cache(maxsize=2)
def _bounds(asked: Asked, rank: int) -> list[tuple[Rows, Rows]]:
    """For each term (lo, hi), each [queries of rank], in positions."""
    layout = asked.layout
    queries = layout.positions(rank)
    return asked.mask.terms(queries[: layout.early(rank)] if asked.early else queries, layout.length)


def runs(lo: Rows, hi: Rows) -> tuple[Run, ...]:
    """Cut rows into the fewest runs that a walk from the top finds. Rows without keys are in none.

    Neighbouring rows of one run share a key. So no run crosses into another document, even where just a token of it
    lies on this rank, and what a kernel multiplies by 0 inside a run is never another document's: 0 x NaN would be NaN.
    """
    count = len(lo)
    filled = hi > lo
    lo_step, hi_step = np.diff(lo), np.diff(hi)
    linear = (lo_step >= 0) & (lo_step <= 1) & (hi_step >= 0) & (hi_step <= 1) & filled[:-1] & filled[1:]
    linear &= lo[1:] < hi[:-1]
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
