"""Who reads what: for every rank and source, the source's tokens that take part in the rank's attention. Pure numpy.

A sequence is cut where a bound of the mask may bend and where ownership changes; in each such *piece* the keys that the
queries see are one interval, known from its first and its last query. So the whole matrix of ranks and sources costs a
few numbers a document and a chunk, not a number a token. The matrix for queries, who is read by whom, is its mirror:
the rows of a rank that see any key of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ring_worker.attention.layout import Layout, Range
from ring_worker.attention.masks import Mask, Positions
from ring_worker.attention.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose attention is computed: every query's, or with `early` only that of each rank's early half."""

    layout: Layout
    mask: Mask
    early: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """For one rank: ranges of the tokens of each `source`, by ascending source: `bounds` [ranges, start and stop].

    `index` [ranks + 1]: where the ranges of each source begin.
    """

    source: Positions
    bounds: Positions
    index: list[int]

    @classmethod
    def table(cls, source: Positions, bounds: Positions, ranks: int) -> Needs:
        return cls(source, bounds, source.searchsorted(np.arange(ranks + 1)).tolist())

    def of(self, source: int) -> Ranges:
        first, last = self.index[source], self.index[source + 1]
        return tuple(Range(a, b) for a, b in self.bounds[first:last].tolist()) if first < last else ()

    def tokens(self, without: int) -> int:
        """Of all sources but one."""
        return int(np.diff(self.bounds[self.source != without], axis=1).sum())


@lru_cache(maxsize=8)
def key_needs(asked: Asked) -> tuple[Needs, ...]:
    """[rank]: the keys of each source that queries of the rank see."""
    lo, hi, owner = _seen(asked)
    order = np.argsort(owner, kind="stable")
    lo, hi, borders = lo[order], hi[order], np.searchsorted(owner[order], np.arange(asked.layout.ranks + 1))
    return tuple(_spread(lo[a:b], hi[a:b], asked.layout) for a, b in pairwise(borders.tolist()))


def _seen(asked: Asked) -> tuple[Positions, Positions, Positions]:
    """(lo, hi, owner) of the key positions that each piece sees, and the rank whose queries it holds."""
    first, last, owner = _pieces(asked)
    starts, stops = asked.mask.terms(first, asked.layout.length), asked.mask.terms(last, asked.layout.length)
    lo, above_first = (np.concatenate(bounds) for bounds in zip(*starts, (first, first), strict=True))
    below_last, hi = (np.concatenate(bounds) for bounds in zip(*stops, (first, first), strict=True))
    owner = np.tile(owner, len(starts) + 1)
    some = (above_first > lo) | (hi > below_last)  # where no row sees any, bounds may still move from row to row
    return lo[some], hi[some], owner[some]


def _pieces(asked: Asked) -> tuple[Positions, Positions, Positions]:
    """(first, last, owner) of the pieces whose attention is asked for, by ascending position."""
    layout = asked.layout
    first = np.union1d(asked.mask.breaks(layout.length), layout.borders())
    limits = np.array([layout.early(rank) for rank in range(layout.ranks)]) if asked.early else None
    if limits is not None:
        first = np.union1d(first, [layout.positions(rank)[n] for rank, n in enumerate(limits) if n < layout.size(rank)])
    last, owner = np.append(first[1:], layout.length) - 1, layout.owners(first)
    if limits is not None:
        kept = layout.counts_before(first)[owner, np.arange(len(first))] < limits[owner]
        first, last, owner = first[kept], last[kept], owner[kept]
    return first, last, owner


def _spread(lo: Positions, hi: Positions, layout: Layout) -> Needs:
    """Intervals of positions, as ranges of every rank's own tokens."""
    lo, hi = _joined(lo, hi)
    before = layout.counts_before(np.stack([lo, hi], axis=1))  # [rank, interval, 2]
    source, interval = np.nonzero(before[..., 1] > before[..., 0])
    bounds = before[source, interval]
    touching = (source[1:] == source[:-1]) & (bounds[1:, 0] == bounds[:-1, 1])
    heads, tails = np.append(True, ~touching)[: len(source)], np.append(~touching, True)[: len(source)]
    return Needs.table(source[heads], np.stack([bounds[heads, 0], bounds[tails, 1]], axis=1), layout.ranks)


def _joined(lo: Positions, hi: Positions) -> tuple[Positions, Positions]:
    """The same positions as ascending intervals that do not touch."""
    order = np.argsort(lo, kind="stable")
    lo, reach = lo[order], np.maximum.accumulate(hi[order])
    new = np.append(True, lo[1:] > reach[:-1])[: len(lo)]
    return lo[new], reach[np.append(new[1:], True)[: len(lo)]]


@lru_cache(maxsize=8)
def query_needs(asked: Asked) -> tuple[Needs, ...]:
    """[rank]: the queries of each source that see keys of the rank."""
    layout = asked.layout
    found: list[list[list[int]]] = [[] for _ in range(layout.ranks)]
    for source in range(layout.ranks):
        for rank, ranges in _readers(asked, source):
            found[rank] += [[source, *r] for r in ranges]
    tables = (np.array(rows, dtype=np.int64).reshape(-1, 3) for rows in found)
    return tuple(Needs.table(table[:, 0], table[:, 1:], layout.ranks) for table in tables)


def _readers(asked: Asked, source: int) -> list[tuple[int, list[list[int]]]]:
    """(rank, the rows of `source` that see keys of it)."""
    layout = asked.layout
    queries = layout.positions(source)
    queries = queries[: layout.early(source)] if asked.early else queries
    sees = np.zeros((layout.ranks, len(queries) + 2), dtype=bool)
    for lo, hi in asked.mask.terms(queries, layout.length):
        before = layout.counts_before(np.stack([lo, hi]))
        sees[:, 1:-1] |= before[:, 1] > before[:, 0]
    edges = np.diff(sees.astype(np.int8), axis=1)
    ranks, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    pairs = np.stack([starts, stops], axis=1)
    return [(rank, pairs[ranks == rank].tolist()) for rank in np.unique(ranks).tolist()]


def travelling(needs: tuple[Needs, ...]) -> int:
    """Tokens read on another rank than their own, counted once for every reader: the least that can be sent."""
    return sum(need.tokens(without=rank) for rank, need in enumerate(needs))
