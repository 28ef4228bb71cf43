"""Every way to give nodes to rings and to order them, for networks small enough: the oracle of the placement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

from ring_operator.topology import Site
from ring_operator.topology.tree import shared


def least(sites: Sequence[Site], groups: int, size: int, weights: Sequence[float], kept: frozenset[str]) -> float:
    """The least cost of all ring hops, by trying everything."""
    best = float("inf")
    for taken in combinations(sites, groups * size):
        if kept <= {site.name for site in taken}:
            best = min(best, min(_cost_of_sharing(taken, size, weights), default=best))
    return best


def _cost_of_sharing(sites: tuple[Site, ...], size: int, weights: Sequence[float]) -> Iterator[float]:
    if not sites:
        yield 0.0
        return
    for others in combinations(sites[1:], size - 1):
        first = min(_cyclic([sites[0], *order], weights) for order in permutations(others))
        rest = tuple(site for site in sites[1:] if site not in others)
        for cost in _cost_of_sharing(rest, size, weights):
            yield first + cost


def _cyclic(ring: Sequence[Site], weights: Sequence[float]) -> float:
    if len(ring) < 2:
        return 0.0
    return sum(weights[shared(a, b)] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
