"""`place`: the nodes of one kind that cost least, cut into rings, each ring in its best order, near groups together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

from ring_operator.placement.bound import lower_bound, whole_rings
from ring_operator.placement.cost import Path, cyclic_hops, least_cost, pieces, ring_cost
from ring_operator.placement.cuts import cuts, exact
from ring_operator.placement.problem import Placement, Problem, Refusal
from ring_operator.placement.refusal import too_few, too_narrow
from ring_operator.placement.room import Cut, Room
from ring_operator.topology import Site
from ring_operator.topology.tree import shared

CHOICES = 100  # of domains for all missing nodes together, up to which each is tried
CANDIDATES = 12  # closest domains that are tried for a node beside those that are kept

Rings = list[list[Site]]


@dataclass(frozen=True, slots=True)
class _Found:
    rings: Rings
    cost: float
    bound: float
    kind: str


def place(problem: Problem) -> Placement | Refusal:
    """Deterministic, whatever the order of `free`."""
    free = sorted(problem.free, key=lambda site: (site.domains, _natural(site.name)))
    found = [one for sites in _pools(problem, free) if (one := _solve(problem, sites)) is not None]
    if not found:
        return _refusal(problem, free)
    return _described(problem, min(found, key=lambda one: (one.cost, one.kind)))


def _pools(problem: Problem, free: Sequence[Site]) -> list[list[Site]]:
    """Nodes of one kind each, of a known place where there are enough of these."""
    kept = [site for site in free if site.name in problem.kept]
    kinds = sorted({site.kind for site in kept}) or sorted({site.kind for site in free})
    wanted = [set(kinds)] if len({site.kind for site in kept}) > 1 else [{kind} for kind in kinds]
    pools: list[list[Site]] = []
    for allowed in wanted:
        sites = [site for site in free if site.kind in allowed]
        known = [site for site in sites if not site.unknown or site.name in problem.kept]
        pools += [pool for pool in (known, sites) if len(pool) >= problem.wanted][:1]
    return pools


def _solve(problem: Problem, sites: list[Site]) -> _Found | None:
    if len(problem.kept) > problem.wanted:
        return None
    kinds = {site.kind for site in sites}
    bound = lower_bound(_room(sites, problem), problem.groups, problem.size, problem.weights)
    if problem.kept:
        sites = _completed(problem, sites)
    found = _cut(problem, sites)
    if found is None:
        return None
    rings = _laid_out(problem, _rings(found, sites, problem))
    cost = sum(ring_cost(ring, problem.weights) for ring in rings)
    return _Found(rings, cost, min(cost, bound), "/".join(sorted(kinds)))


def _room(sites: Iterable[Site], problem: Problem) -> Room:
    counts: dict[Path, int] = {}
    for site in sites:
        counts[site.domains] = counts.get(site.domains, 0) + 1
    return Room(counts, len(problem.levels))


def _cut(problem: Problem, sites: Sequence[Site]) -> list[Cut] | None:
    room = _room(sites, problem)
    within = problem.within
    least_depth = within.level + 1 if within is not None and within.required else 0
    found = cuts(room, problem.groups, problem.size, problem.weights, least_depth)
    if found is None or least_depth:
        return found
    cost = sum(least_cost(cut, problem.weights) for cut in found)
    if cost <= lower_bound(room, problem.groups, problem.size, problem.weights) + 1e-9:
        return found
    least = exact(room, problem.groups, problem.size, problem.weights)
    return least or found


def _completed(problem: Problem, sites: list[Site]) -> list[Site]:
    """The kept nodes and as many more as are wanted, one after the other from the domain where it costs least."""
    chosen = [site for site in sites if site.name in problem.kept]
    rest = [site for site in sites if site.name not in problem.kept]
    if len(chosen) < problem.wanted and (tried := _best_of_all(problem, chosen, rest)) is not None:
        return tried
    while len(chosen) < problem.wanted:
        missing = problem.wanted - len(chosen)
        firsts: dict[Path, Site] = {}
        for site in rest:
            firsts.setdefault(site.domains, site)
        near = sorted(firsts.values(), key=lambda site: (_distance(site, chosen), site.domains))[:CANDIDATES]
        best = near[0] if missing > 1 else min(near, key=lambda site: _cost_with(problem, [*chosen, site]))
        chosen.append(best)
        rest.remove(best)
    return sorted(chosen, key=lambda site: (site.domains, _natural(site.name)))


def _best_of_all(problem: Problem, chosen: list[Site], rest: list[Site]) -> list[Site] | None:
    """By trying every choice of domains for the missing nodes. None: there are too many."""
    there: dict[Path, list[Site]] = {}
    for site in rest:
        there.setdefault(site.domains, []).append(site)
    missing = problem.wanted - len(chosen)
    if comb(len(there) + missing - 1, missing) > CHOICES:
        return None
    choices = (Counter(choice) for choice in combinations_with_replacement(sorted(there), missing))
    able = [choice for choice in choices if all(count <= len(there[path]) for path, count in choice.items())]
    sets = [chosen + [s for path, count in choice.items() for s in there[path][:count]] for choice in able]
    best = min(sets, key=lambda sites: _cost_with(problem, sites))
    return sorted(best, key=lambda site: (site.domains, _natural(site.name)))


def _distance(site: Site, others: Sequence[Site]) -> tuple[int, int]:
    """From the nearest of the others, then from all of them."""
    depths = [shared(site, other) for other in others]
    return -max(depths, default=0), -sum(depths)


def _cost_with(problem: Problem, sites: list[Site]) -> float:
    found = _cut(problem, sites)
    return sum(least_cost(cut, problem.weights) for cut in found) if found else float("inf")


def _rings(found: Sequence[Cut], sites: Sequence[Site], problem: Problem) -> Rings:
    """Names for counts. Depth-first is a best order of a ring, and sorted paths are depth-first."""
    by_path: dict[Path, list[Site]] = {}
    for site in sites:
        by_path.setdefault(site.domains, []).append(site)
    for path, there in by_path.items():
        there.sort(key=lambda site: (site.name not in problem.kept, _natural(site.name)))
        by_path[path] = there[::-1]
    return [
        sorted(
            (by_path[path].pop() for path in sorted(cut) for _ in range(cut[path])),
            key=lambda site: (site.domains, _natural(site.name)),
        )
        for cut in sorted(found, key=lambda cut: sorted(cut))
    ]


def _laid_out(problem: Problem, rings: Rings) -> Rings:
    """Group p x data + d. In the order of the tree, stages of one data rank are next to each other.

    Then each ring is turned round and reversed so that its nodes stand across from near ones of the stage before.
    """
    rings = sorted(rings, key=lambda ring: [(site.domains, _natural(site.name)) for site in ring])
    grid: Rings = [[] for _ in rings]
    for number, ring in enumerate(rings):
        d, p = divmod(number, problem.pipeline)
        grid[p * problem.data + d] = ring
    for index in range(len(grid)):
        before = index - problem.data if index >= problem.data else index - 1 if index else None
        if before is not None:
            grid[index] = _facing(grid[before], grid[index], problem.weights)
    return grid


def _facing(other: Sequence[Site], ring: list[Site], weights: Sequence[float]) -> list[Site]:
    def across(turned: Sequence[Site]) -> float:
        return sum(weights[shared(a, b)] for a, b in zip(other, turned, strict=True))

    starts = [0, *(i for i in range(1, len(ring)) if ring[i].domains != ring[i - 1].domains)]
    turns = [ring[i:] + ring[:i] for i in starts]
    return min((way for turned in turns for way in (turned, turned[::-1])), key=across)


def _described(problem: Problem, found: _Found) -> Placement:
    names = (*problem.levels, "node")
    hops = dict.fromkeys(names, 0)
    for ring in found.rings:
        for depth in cyclic_hops(ring):
            hops[names[depth]] += 1
    used = [site for ring in found.rings for site in ring]
    return Placement(
        rings=tuple(tuple(site.name for site in ring) for ring in found.rings),
        hops=tuple(hops.items()),
        cost=found.cost,
        lower_bound=found.bound,
        weights=problem.weights,
        crossing=_crossing(problem, found.rings),
        pipeline_cost=_neighbours(problem, found.rings, over_pipeline=True),
        data_cost=_neighbours(problem, found.rings, over_pipeline=False),
        kind=found.kind,
        unknown=tuple(site.name for site in used if site.unknown),
        notes=tuple(_notes(problem, found.rings)),
    )


def _crossing(problem: Problem, rings: Rings) -> tuple[tuple[str, int], ...]:
    per_ring = [pieces((site.domains for site in ring), len(problem.levels)) for ring in rings]
    return tuple((level, sum(k[i] > 1 for k in per_ring)) for i, level in enumerate(problem.levels))


def _neighbours(problem: Problem, rings: Rings, over_pipeline: bool) -> float:
    """Of nodes at the same place of neighbouring groups; data ranks are a ring, pipeline stages a chain."""
    p_count, d_count = problem.pipeline, problem.data
    if over_pipeline:
        pairs = [(p * d_count + d, (p + 1) * d_count + d) for p in range(p_count - 1) for d in range(d_count)]
    else:
        turns = d_count if d_count > 2 else d_count - 1
        pairs = [(p * d_count + d, p * d_count + (d + 1) % d_count) for p in range(p_count) for d in range(turns)]
    return sum(problem.weights[shared(a, b)] for i, j in pairs for a, b in zip(rings[i], rings[j], strict=True))


def _notes(problem: Problem, rings: Rings) -> Iterable[str]:
    unknown = [site.name for ring in rings for site in ring if site.unknown]
    if unknown:
        yield f"the place of {len(unknown)} nodes in the network is not known ({', '.join(unknown[:3])})"
    kinds = sorted({site.kind or "no GPU" for ring in rings for site in ring})
    if len(kinds) > 1:
        yield f"nodes of {len(kinds)} kinds: {', '.join(kinds)}"
    if problem.within is not None and not problem.within.required:
        crossing = dict(_crossing(problem, rings))[problem.levels[problem.within.level]]
        if crossing:
            level = problem.levels[problem.within.level]
            room = max(_room(problem.free, problem).left[d] for d in _domains(problem, problem.within.level))
            told = f"; the largest has {room} free nodes" if len(problem.kept) < problem.wanted else ""
            yield f"{crossing} of {len(rings)} rings cross {level}{told}"


def _domains(problem: Problem, level: int) -> set[Path]:
    return {site.domains[: level + 1] for site in problem.free}


def _refusal(problem: Problem, free: Sequence[Site]) -> Refusal:
    by_kind: dict[str, int] = {}
    for site in free:
        by_kind[site.kind] = by_kind.get(site.kind, 0) + 1
    most = max(by_kind.values(), default=0)
    if most < problem.wanted or problem.within is None:
        return too_few(problem, by_kind)
    room = _room(free, problem)
    depth = problem.within.level + 1
    domains = {path[-1]: room.left[path] for path in room.domains(depth)}
    return too_narrow(problem, domains, whole_rings(room, depth, problem.size), _wider(problem, room))


def _wider(problem: Problem, room: Room) -> str | None:
    """The closest level that would do."""
    assert problem.within is not None
    for level in range(problem.within.level - 1, -1, -1):
        if whole_rings(room, level + 1, problem.size) >= problem.groups:
            return problem.levels[level]
    return None


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """node-2 before node-10."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)
