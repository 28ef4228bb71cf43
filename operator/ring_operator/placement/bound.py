"""What no placement can undercut.

Level by level, as if the levels did not hinder each other: of the rings, at most sum(room // size) lie whole inside a
domain; every other one has at least two pieces, and no fewer than the largest domains need to hold it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ring_operator.placement.room import Room


def whole_rings(room: Room, depth: int, size: int) -> int:
    """Rings that fit whole into domains that share `depth` levels."""
    return sum(room.left[path] // size for path in room.domains(depth))


def lower_bound(room: Room, groups: int, size: int, weights: Sequence[float]) -> float:
    if size < 2:
        return 0.0
    total = groups * size * weights[-1]
    for level in range(room.levels):
        split = groups - min(groups, whole_rings(room, level + 1, size))
        total += split * _least_pieces(room, level + 1, size) * (weights[level] - weights[level + 1])
    return total


def _least_pieces(room: Room, depth: int, size: int) -> int:
    """Of a ring that does not lie inside one domain."""
    count, held = 0, 0
    for left in sorted((room.left[path] for path in room.domains(depth)), reverse=True):
        if held >= size:
            break
        count, held = count + 1, held + left
    return max(2, count)
