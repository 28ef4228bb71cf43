"""Orders in which others give ranks to nodes: of the nodes that they take, cut into groups one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ring_operator.placement import Problem
from ring_operator.topology import Site
from ring_operator.topology.tree import shared

Rings = list[list[Site]]


def depth_first(problem: Problem) -> Rings:
    """Domains in lexicographic order, as Kueue's topology-aware scheduling assigns ranks."""
    return _cut(problem, sorted(problem.free, key=lambda site: (site.domains, site.name)))


def host_names(problem: Problem) -> Rings:
    """By name alone, as torchrun's sorted hosts."""
    return _cut(problem, sorted(problem.free, key=lambda site: site.name))


def open_chain(problem: Problem) -> Rings:
    """Always the nearest node that is left, without a thought of the way back, as GKE's topology daemon."""
    left = sorted(problem.free, key=lambda site: site.name)
    chain = [left.pop(0)]
    while left and len(chain) < problem.wanted:
        best = max(range(len(left)), key=lambda i: (shared(chain[-1], left[i]), -i))
        chain.append(left.pop(best))
    return _cut(problem, chain)


def at_random(problem: Problem) -> Rings:
    nodes = sorted(problem.free, key=lambda site: site.name)
    random.Random(0).shuffle(nodes)
    return _cut(problem, nodes)


def _cut(problem: Problem, nodes: Sequence[Site]) -> Rings:
    return [list(nodes[g * problem.size : (g + 1) * problem.size]) for g in range(problem.groups)]


OTHERS: dict[str, Callable[[Problem], Rings]] = {
    "depth-first": depth_first,
    "host names": host_names,
    "open chain": open_chain,
    "random": at_random,
}
