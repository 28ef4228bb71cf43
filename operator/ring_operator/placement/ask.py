"""A plan, what the manifest wishes, and the network as it is -> `Problem`, and what the search makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ring_operator.placement.problem import Placement, Problem, Refusal, Within
from ring_operator.placement.solve import place
from ring_operator.placement.weights import weights_for
from ring_operator.plan import ParallelPlan
from ring_operator.spec.workers import Placement as Wish
from ring_operator.topology import Site, Topology, find_level


@dataclass(frozen=True, slots=True)
class Ground:
    """The network as one job finds it. `free`: nodes that its pods could take. `why_not`: why the others cannot be."""

    topology: Topology
    free: tuple[Site, ...]
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Groups:
    """Nodes that form rings together: `pipeline` x `data` groups of `size`. Where a node has whole rings, it is one."""

    pipeline: int
    data: int
    size: int


def groups_of(plan: ParallelPlan) -> Groups:
    """Tensor and context fill nodes first: a group is whole nodes, or a whole number of groups fills a node."""
    degrees, per_node = plan.degrees, plan.ranks_per_node
    group = degrees.context * degrees.tensor
    if plan.nodes == 1:
        return Groups(1, 1, 1)
    if group >= per_node:
        return Groups(degrees.pipeline, degrees.data, group // per_node)
    whole = per_node // group
    if degrees.data % whole:
        return Groups(1, plan.nodes, 1)
    return Groups(degrees.pipeline, degrees.data // whole, 1)


def find(plan: ParallelPlan, wish: Wish, ground: Ground, kept: Iterable[str] = ()) -> Placement | Refusal:
    """The nodes and the order of the rings. `kept`: free nodes that are to be used."""
    problem = _problem(plan, wish, ground, kept)
    found = problem if isinstance(problem, Refusal) else place(problem)
    if isinstance(found, Refusal) and isinstance(problem, Problem) and ground.why_not:
        return Refusal(f"{found.reason}; {ground.why_not}", found.instead)
    return found


def _problem(plan: ParallelPlan, wish: Wish, ground: Ground, kept: Iterable[str]) -> Problem | Refusal:
    """Refused where the manifest names no level of the network."""
    levels, groups = tuple(level.name for level in ground.topology.levels), groups_of(plan)
    try:
        weights = weights_for(levels, wish.weights)
    except ValueError as error:
        return Refusal(
            f"spec.placement.weights: {error}", "Name levels that `ringctl topology` shows, or leave it out."
        )
    within = None
    if wish.within is not None:
        level = find_level(ground.topology.levels, wish.within.level)
        if level is None:
            there = ", ".join(levels) or "none: no node carries a label of the network"
            return Refusal(
                f"spec.placement.within.level: {wish.within.level} is no level of this cluster's network; there are: "
                f"{there}",
                "Take one of these, or name label keys in spec.placement.levels.",
            )
        within = Within(level, wish.within.policy == "required")
    return Problem(
        levels=levels,
        free=ground.free,
        pipeline=groups.pipeline,
        data=groups.data,
        size=groups.size,
        weights=weights,
        kept=frozenset(kept),
        within=within,
    )
