"""Free nodes -> one cut for each ring: greedy first, then pairs of rings shared out anew, then exactly where that is
small enough to be tried out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations

from ring_operator.placement.bound import lower_bound
from ring_operator.placement.cost import Path, least_cost
from ring_operator.placement.room import Cut, Room

EXACT_STEPS = 60_000  # of the exact search, about a quarter of a second
EXACT_DOMAINS = 10
PAIR_PIECES = 7  # closest domains that two rings have together, for all ways of sharing them to be tried


def cuts(room: Room, groups: int, size: int, weights: Sequence[float], least_depth: int = 0) -> list[Cut] | None:
    """The best found. `least_depth`: every ring inside one domain that shares so many levels. None: no room."""
    tries = [
        found
        for largest in (True, False)
        for fullest in (True, False)
        if (found := _greedy(_copy(room), groups, size, least_depth, (largest, fullest))) is not None
    ]
    bound = lower_bound(room, groups, size, weights) + 1e-9
    best: list[Cut] | None = None
    for found in sorted(tries, key=lambda found: _cost(found, weights)):
        better = found
        if _cost(found, weights) > bound:
            better = _improved(found, weights, least_depth)
            better = _improved(_recut(room, better, weights, least_depth), weights, least_depth)
        if best is None or _cost(better, weights) < _cost(best, weights):
            best = better
        if _cost(best, weights) <= bound:
            break
    return best


def _cost(found: Sequence[Cut], weights: Sequence[float]) -> float:
    return sum(least_cost(cut, weights) for cut in found)


def _copy(room: Room) -> Room:
    return Room({path: room.left[path] for path in room.domains(room.levels)}, room.levels)


def _greedy(room: Room, groups: int, size: int, least_depth: int, how: tuple[bool, bool]) -> list[Cut] | None:
    """The closest domains first that hold a whole ring; among them the one that is left with least (or most)."""
    found: list[Cut] = []
    largest, fullest = how
    for depth in range(room.levels, least_depth - 1, -1):
        able = [path for path in room.domains(depth) if room.left[path] >= size]
        able.sort(key=lambda p: (room.left[p] % size, room.left[p], p) if fullest else (-room.left[p], p))
        for path in able:
            while room.left[path] >= size and len(found) < groups:
                found.append(room.take(path, size, largest))
    return found if len(found) == groups else None


def _improved(found: list[Cut], weights: Sequence[float], least_depth: int) -> list[Cut]:
    """Pairs of rings that share domains are cut anew from what both have, as long as that helps."""
    found, again = list(found), True
    costs = [least_cost(cut, weights) for cut in found]
    fresh = set(range(len(found)))  # rings that have changed since all their pairs were tried
    while again:
        again, tried, fresh = False, fresh, set()
        for i, j in combinations([i for i, cut in enumerate(found) if len(cut) > 1], 2):
            if i not in tried | fresh and j not in tried | fresh:
                continue
            before = costs[i] + costs[j]
            for one, other in _shared_out(found[i], found[j]):
                inside = all(_depth(cut) >= least_depth for cut in (one, other))
                if inside and least_cost(one, weights) + least_cost(other, weights) < before - 1e-9:
                    found[i], found[j], again = one, other, True
                    costs[i], costs[j] = least_cost(one, weights), least_cost(other, weights)
                    before = costs[i] + costs[j]
                    fresh |= {i, j}
    return found


def _recut(room: Room, found: list[Cut], weights: Sequence[float], least_depth: int) -> list[Cut]:
    """Each split ring anew from its own nodes and those that nobody took, wherever that costs least."""
    left, found = _copy(room), list(found)
    for cut in found:
        left.add(cut, -1)
    for number, before in enumerate(found):
        if len(before) == 1:
            continue
        left.add(before)
        size = sum(before.values())
        able = [p for depth in range(least_depth, left.levels + 1) for p in left.domains(depth) if left.left[p] >= size]
        best = min((_tried(left, path, size) for path in able), key=lambda cut: least_cost(cut, weights))
        if least_cost(best, weights) < least_cost(before, weights) - 1e-9:
            found[number] = best
        left.add(found[number], -1)
    return found


def _tried(room: Room, within: Path, size: int) -> Cut:
    """As `take`, and put back."""
    cut = room.take(within, size)
    room.add(cut)
    return cut


def _depth(cut: Cut) -> int:
    """Levels that all nodes of a cut share."""
    paths = list(cut)
    depth = 0
    while depth < len(paths[0]) and len({path[: depth + 1] for path in paths}) == 1:
        depth += 1
    return depth


def _shared_out(a: Cut, b: Cut) -> Iterator[tuple[Cut, Cut]]:
    """Every way in which at most one domain is in both: two that were could be traded until one is not."""
    size = sum(a.values())
    pool = {path: a.get(path, 0) + b.get(path, 0) for path in sorted({*a, *b})}
    paths = list(pool)
    if len(paths) > PAIR_PIECES:
        return
    for chosen in range(1 << len(paths)):
        one = {path: pool[path] for k, path in enumerate(paths) if chosen >> k & 1}
        lack = size - sum(one.values())
        if lack == 0:
            yield one, {path: n for path, n in pool.items() if path not in one}
        for path in paths:
            if path not in one and 0 < lack < pool[path]:
                rest = {p: n for p, n in pool.items() if p not in one and p != path}
                yield {**one, path: lack}, {**rest, path: pool[path] - lack}


def exact(room: Room, groups: int, size: int, weights: Sequence[float]) -> list[Cut] | None:
    """The least of all, by dynamic programming over what is left of every closest domain. None: too many cases."""
    paths = sorted(room.domains(room.levels))
    if len(paths) > EXACT_DOMAINS:
        return None
    start = tuple(room.left[path] for path in paths)
    steps = [0]

    @cache
    def best(left: tuple[int, ...], rings: int) -> tuple[float, tuple[int, ...]]:
        if rings == 0:
            return 0.0, ()
        found: tuple[float, tuple[int, ...]] = (float("inf"), ())
        for share in _shares(left, size):
            steps[0] += 1
            if steps[0] > EXACT_STEPS:
                raise OverflowError
            rest = tuple(n - s for n, s in zip(left, share, strict=True))
            cost = _cost_of(paths, share, weights) + best(rest, rings - 1)[0]
            if cost < found[0] - 1e-9:
                found = (cost, share)
        return found

    try:
        best(start, groups)
    except OverflowError:
        return None
    found: list[Cut] = []
    left = start
    for rings in range(groups, 0, -1):
        share = best(left, rings)[1]
        if not share:
            return None
        found.append({path: n for path, n in zip(paths, share, strict=True) if n})
        left = tuple(n - s for n, s in zip(left, share, strict=True))
    return found


def _cost_of(paths: Sequence[Path], share: Sequence[int], weights: Sequence[float]) -> float:
    return least_cost({path: n for path, n in zip(paths, share, strict=True) if n}, weights)


def _shares(left: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """All ways to take `size` from what is left."""
    if not left:
        if size == 0:
            yield ()
        return
    if sum(left) < size:
        return
    for n in range(min(left[0], size), -1, -1):
        for rest in _shares(left[1:], size - n):
            yield (n, *rest)
