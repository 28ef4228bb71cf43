"""What a hop costs by default, by the level that it crosses: ratios of the bandwidth that fabrics usually have there.

A hop inside the closest domain costs 1. A hop that leaves an NVLink domain has a ninth of the bandwidth (one way,
NVLink 4 has 450 GB/s, a 400G port for each GPU 50 GB/s); each wider level is taken to be oversubscribed 2:1; a zone is
another building, 8:1. Only ratios matter, and where links are known, `spec.placement.weights` says better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

INSIDE = "node"  # as a name of a level: a hop to another node of the same closest domain
_LEAVING = {"nvlink": 9.0, "zone": 8.0, "region": 8.0}
_LEAVING_OTHER = 2.0


def weights_for(levels: Sequence[str], given: Mapping[str, float]) -> tuple[float, ...]:
    """By the number of levels shared, as `Problem.weights`. `given`: by the name of the level that a hop leaves.

    Raises ValueError where a name is of no level, or a wider level would cost less than a closer one.
    """
    if unknown := sorted(given.keys() - {*levels, INSIDE}):
        raise ValueError(f"{', '.join(unknown)}: no such level; there are {', '.join([*levels, INSIDE])}")
    cost, closest_first = given.get(INSIDE, 1.0), []
    closest_first.append((INSIDE, cost))
    for level in reversed(levels):
        cost = given.get(level, cost * _LEAVING.get(level, _LEAVING_OTHER))
        closest_first.append((level, cost))
    for (closer, less), (wider, more) in pairwise(closest_first):
        if more < less:
            raise ValueError(f"{wider} {more:g} is less than {closer} {less:g}, though {closer} lies inside it")
    return tuple(cost for _, cost in reversed(closest_first))
