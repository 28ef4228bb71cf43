"""A plan, what the manifest wishes, and the network as it is -> `Problem`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ring_operator.placement.problem import Problem, Refusal, Within
from ring_operator.placement.weights import weights_for
from ring_operator.plan import ParallelPlan
from ring_operator.spec.workers import Placement as Wish
from ring_operator.topology import Site, Topology


@dataclass(frozen=True, slots=True)
class Groups:
    """Nodes that form rings together: `pipeline` x `data` groups of `size`; or `rings_per_node` rings in each node."""

    pipeline: int
    data: int
    size: int
    rings_per_node: int = 1


def groups_of(plan: ParallelPlan) -> Groups:
    """Tensor and context fill nodes first: a group is whole nodes, or a whole number of groups fills a node."""
    degrees, per_node = plan.degrees, plan.ranks_per_node
    group = degrees.context * degrees.tensor
    if plan.nodes == 1:
        return Groups(1, 1, 1, max(1, per_node // group))
    if group >= per_node:
        return Groups(degrees.pipeline, degrees.data, group // per_node)
    whole = per_node // group
    if degrees.data % whole:
        return Groups(1, plan.nodes, 1, whole)
    return Groups(degrees.pipeline, degrees.data // whole, 1, whole)


def ask(
    plan: ParallelPlan, wish: Wish, topology: Topology, free: Iterable[Site], kept: Iterable[str] = ()
) -> Problem | Refusal:
    """`free`: nodes that may be taken, `kept` among them. Refused where the manifest names no level of theirs."""
    levels, groups = tuple(level.name for level in topology.levels), groups_of(plan)
    try:
        weights = weights_for(levels, wish.weights)
    except ValueError as error:
        return Refusal(
            f"spec.placement.weights: {error}", "Name levels that `ringctl topology` shows, or leave it out."
        )
    within = None
    if wish.within is not None:
        level = _number(topology, wish.within.level)
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
        free=tuple(free),
        pipeline=groups.pipeline,
        data=groups.data,
        size=groups.size,
        weights=weights,
        kept=frozenset(kept),
        within=within,
        rings_per_node=groups.rings_per_node,
    )


def _number(topology: Topology, name: str) -> int | None:
    """By name, or by a label key."""
    for number, level in enumerate(topology.levels):
        if name == level.name or name in level.keys:
            return number
    return None
