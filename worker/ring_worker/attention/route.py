"""In which order a rank meets the others: once round the ring, or round a ring of rings.

In a ring of rings (LoongTrain's double ring, arXiv 2406.18485) ranks that share fast links form inner rings; blocks go
round the inner ring at every step, and cross to the next inner ring once, which takes as long as a whole inner round.
With one inner ring of all ranks this is the plain ring. Rank = outer index x inner size + inner index.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """`ranks` in rings of `inner`."""

    ranks: int
    inner: int

    def __post_init__(self) -> None:
        if self.inner < 1 or self.ranks % self.inner:
            raise ValueError(f"ring: inner rings of {self.inner} ranks do not divide {self.ranks} ranks")

    def source(self, rank: int, step: int) -> int:
        """Whose tokens `rank` meets in `step`."""
        return self._shifted(rank, -(step // self.inner), -step)

    def visitor(self, source: int, step: int) -> int:
        """Which rank meets the tokens of `source` in `step`."""
        return self._shifted(source, step // self.inner, step)

    def before(self, rank: int) -> int:
        """The rank from which blocks come in the inner ring."""
        return self._shifted(rank, 0, -1)

    def after(self, rank: int) -> int:
        return self._shifted(rank, 0, 1)

    def across(self, rank: int) -> int:
        """The rank in the inner ring before, at the same place."""
        return self._shifted(rank, -1, 0)

    def starts(self, step: int) -> bool:
        """Whether an inner round begins with `step`."""
        return step % self.inner == 0

    def _shifted(self, rank: int, outer: int, inner: int) -> int:
        rings = self.ranks // self.inner
        place, ring = rank % self.inner, rank // self.inner
        return (ring + outer) % rings * self.inner + (place + inner) % self.inner
