"""What no placement can undercut.

Level by level, as if the levels did not hinder each other. Of the rings, at most sum(room // size) lie whole inside a
domain; the others are split. With c the room of the largest domain, a split ring has at least k = ceil(size / c)
pieces, and two; if it has just k, each of them has at least q = size - (k - 1) c nodes, and only sum(room // q) such
pieces can be cut at all. So many rings as these make have k pieces, all further ones more. And together they have no
fewer pieces than the largest domains that hold all their nodes are in number.
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
        rooms = sorted((left for path in room.domains(level + 1) if (left := room.left[path])), reverse=True)
        split = groups - min(groups, sum(left // size for left in rooms))
        total += _least_pieces(rooms, split, size) * (weights[level] - weights[level + 1])
    return total


def _least_pieces(rooms: Sequence[int], split: int, size: int) -> int:
    """Of so many rings of which none lies inside one domain. `rooms`: the largest first."""
    if not split or not rooms:
        return 0
    largest = min(rooms[0], size - 1)
    each = -(-size // largest)
    piece = size - (each - 1) * largest
    able = min(split, sum(left // piece for left in rooms) // each)
    return max(able * each + (split - able) * (each + 1), _domains_for(rooms, split * size))


def _domains_for(rooms: Sequence[int], nodes: int) -> int:
    """As few domains as can hold so many nodes."""
    for count, left in enumerate(rooms):
        if nodes <= 0:
            return count
        nodes -= left
    return len(rooms)
