"""Which tokens of a sequence each rank of a ring owns.

zigzag: 2N chunks, rank r owns chunks r and 2N-1-r, so that causal work is equal in every step. contiguous: N chunks;
right for windows, which then need only their neighbours. striped: stripes dealt out in turn. Lengths that do not divide
give ranges that differ by a token or a stripe; nothing is padded. A rank's ranges ascend, hence so do its positions:
the schedule rests on that.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        if self.kind == "contiguous":
            return self._chunks((rank,), self.ranks)
        return self._chunks((rank, 2 * self.ranks - 1 - rank), 2 * self.ranks)

    def _chunks(self, chosen: tuple[int, ...], count: int) -> tuple[Range, ...]:
        ranges = (Range(i * self.length // count, (i + 1) * self.length // count) for i in chosen)
        return tuple(r for r in ranges if r.size)

    def positions(self, rank: int) -> Positions:
        """int64 [tokens of `rank`], ascending: shard i of the sequence is `x[positions(i)]`."""
        ranges = self.ranges(rank)
        return np.concatenate([np.arange(r.start, r.stop) for r in ranges]) if ranges else np.zeros(0, dtype=np.int64)

    def counts_before(self, positions: Positions) -> Positions:
        """int64 [ranks, *positions.shape]: how many tokens at smaller positions each rank owns."""
        p = positions[None]
        ranks = np.arange(self.ranks).reshape(-1, *(1,) * positions.ndim)
        if self.kind == "striped":
            rounds, rest = np.divmod(p, self.ranks * self.stripe)
            return rounds * self.stripe + np.clip(rest - ranks * self.stripe, 0, self.stripe)
        ranges = [self.ranges(rank) for rank in range(self.ranks)]
        counts = [
            sum((np.clip(positions - r.start, 0, r.size) for r in own), np.zeros_like(positions)) for own in ranges
        ]
        return np.stack(counts)

    def size(self, rank: int) -> int:
        """Tokens that `rank` owns."""
        return sum(r.size for r in self.ranges(rank))
