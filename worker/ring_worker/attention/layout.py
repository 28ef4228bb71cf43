"""Which tokens of a sequence each rank of a ring owns.

zigzag: 2N chunks, rank r owns chunks r and 2N-1-r, so that causal work is equal in every step. contiguous: N chunks;
right for windows, which then need only their neighbours. striped: stripes dealt out in turn. Lengths that do not divide
give ranges that differ by a token or a stripe; nothing is padded. A rank's ranges ascend, hence so do its positions:
the schedule rests on that. `ranks` are positions in the ring; where heads are split as well (Ulysses), the members at a
position share its tokens in turn, in ascending parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ring_worker.attention.masks import Positions

KINDS = ("zigzag", "contiguous", "striped")


class Range(NamedTuple):
    """Half-open."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Layout:
    """How `length` tokens lie over `ranks` ranks. `stripe`: tokens in a stripe of the striped layout."""

    kind: str
    length: int
    ranks: int
    stripe: int = 64

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"layout {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.ranks < 1 or self.length < 1 or self.stripe < 1:
            raise ValueError(
                f"layout: ranks {self.ranks}, length {self.length}, stripe {self.stripe} must be at least 1"
            )

    def ranges(self, rank: int) -> tuple[Range, ...]:
        """Positions that `rank` owns, ascending; empty ranges are left out."""
        if self.kind == "striped":
            starts = range(rank * self.stripe, self.length, self.ranks * self.stripe)
            return tuple(Range(s, min(s + self.stripe, self.length)) for s in starts)
        return tuple(Range(start, stop) for start, stop in self._chunks()[rank].tolist() if stop > start)

    def _chunks(self) -> Positions:
        """[ranks, chunks of a rank, start and stop], of a layout that is not striped."""
        if self.kind == "contiguous":
            return _borders(self.length, self.ranks)[:, None]
        chunks = _borders(self.length, 2 * self.ranks)
        return np.stack([chunks[: self.ranks], chunks[: self.ranks - 1 : -1]], axis=1)

    def positions(self, rank: int) -> Positions:
        """int64 [tokens of `rank`], ascending: shard i of the sequence is `x[positions(i)]`."""
        ranges = self.ranges(rank)
        return np.concatenate([np.arange(r.start, r.stop) for r in ranges]) if ranges else np.zeros(0, dtype=np.int64)

    def borders(self) -> Positions:
        """Positions at which a range of some rank starts, ascending."""
        if self.kind == "striped":
            return np.arange(0, self.length, self.stripe)
        starts = self._chunks()[..., 0]
        return np.unique(starts[starts < self.length])

    def owners(self, positions: Positions) -> Positions:
        """The rank that owns each position."""
        if self.kind == "striped":
            return positions // self.stripe % self.ranks
        count = self.ranks if self.kind == "contiguous" else 2 * self.ranks
        chunk = np.searchsorted(_borders(self.length, count)[:, 1], positions, side="right")
        return np.minimum(chunk, 2 * self.ranks - 1 - chunk) if self.kind == "zigzag" else chunk

    def counts_before(self, positions: Positions, owner: int | None = None) -> Positions:
        """int64 [ranks, *positions.shape]: how many tokens at smaller positions each rank owns; or [1, ...] for one."""
        chosen = slice(None) if owner is None else slice(owner, owner + 1)
        if self.kind == "striped":
            ranks = np.arange(self.ranks)[chosen].reshape(-1, *(1,) * positions.ndim)
            rounds, rest = np.divmod(positions[None], self.ranks * self.stripe)
            return rounds * self.stripe + np.clip(rest - ranks * self.stripe, 0, self.stripe)
        chunks = self._chunks()[chosen]
        chunks = chunks.reshape(len(chunks), -1, 2, *(1,) * positions.ndim)
        starts, stops = chunks[:, :, 0], chunks[:, :, 1]
        before: Positions = np.clip(positions - starts, 0, stops - starts).sum(axis=1)
        return before

    def size(self, rank: int) -> int:
        """Tokens that `rank` owns."""
        return sum(r.size for r in self.ranges(rank))

    def early(self, rank: int) -> int:
        """How many first tokens of `rank` are its early half: in zigzag, its first chunk."""
        if self.kind != "zigzag":
            return self.size(rank) // 2
        return int(np.diff(self._chunks()[rank, 0])[0])

    def most(self) -> int:
        """Tokens of the rank that owns the most."""
        return max(self.size(rank) for rank in range(self.ranks))


@lru_cache(maxsize=16)
def _borders(length: int, chunks: int) -> Positions:
    """[chunks, start and stop] of equal parts, as near as whole tokens allow."""
    edges = np.arange(chunks + 1, dtype=np.int64) * length // chunks
    return np.stack([edges[:-1], edges[1:]], axis=1)
