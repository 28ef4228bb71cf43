"""What rings cost.

A ring that is walked depth-first crosses, of every domain that it touches, the border twice, once in and once out. So
with k(l) the number of a ring's domains on level l, its least cost over all orders is

    size x weights[-1]  +  sum over levels l with k(l) > 1 of  k(l) x (weights[l] - weights[l + 1])

which says that the cost is a matter of counting pieces, level by level. `ring_cost` is the sum over actual hops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ring_operator.topology import Site
from ring_operator.topology.tree import shared

Path = tuple[str, ...]  # a closest domain, as all domains down to it
Counts = Mapping[Path, int]


def cyclic_hops(ring: Sequence[Site]) -> list[int]:
    """Levels that the ends of each hop share, the one from the last node to the first included; one node has none."""
    if len(ring) < 2:
        return []
    return [shared(a, b) for a, b in pairwise([*ring, ring[0]])]


def ring_cost(ring: Sequence[Site], weights: Sequence[float]) -> float:
    return sum(weights[depth] for depth in cyclic_hops(ring))


def pieces(counts: Iterable[Path], levels: int) -> list[int]:
    """Domains that are touched, on every level."""
    paths = list(counts)
    return [len({path[: level + 1] for path in paths}) for level in range(levels)]


def least_cost(counts: Counts, weights: Sequence[float]) -> float:
    """Of a ring with so many nodes in each closest domain."""
    size, levels = sum(counts.values()), len(weights) - 1
    if size < 2:
        return 0.0
    split = ((k, level) for level, k in enumerate(pieces(counts, levels)) if k > 1)
    return size * weights[-1] + sum(k * (weights[level] - weights[level + 1]) for k, level in split)
