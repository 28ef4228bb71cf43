"""Bound pods -> the rank table of an epoch, and the ConfigMap that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ring_operator.observe.pods import PodFacts
from ring_operator.placement import Ground, Placement, Refusal, find
from ring_operator.reconcile.view import View
from ring_operator.render import Manifest, ranks_map
from ring_operator.spec.workers import Placement as Wish
from ring_operator.status.document import HopsStatus, PlacementStatus
from ring_operator.topology import find_level
from ring_worker.contract import Master, Member, RankTable


@dataclass(frozen=True, slots=True)
class Ranked:
    """Pods in the order of the ranks that they get, and how their rings lie in the network as far as it is known."""

    pods: tuple[PodFacts, ...]
    placement: PlacementStatus | None = None


def ranked(view: View) -> Ranked:
    """Of bound pods, whoever bound them: every ring anew from where its nodes really are.

    Their index decides where nodes cannot be seen.
    """
    pods = [view.by_name[name] for name in view.names]
    if view.ground is None:
        return Ranked(tuple(pods))
    by_node = {pod.node: pod for pod in pods}
    ground = view.ground(frozenset(by_node), frozenset())
    given = Ground(ground.topology, ground.topology.of(by_node))
    retries = view.status.placement.retries if view.status.placement else 0
    found = find(view.plan, _as_far_as_can_be(view.job.spec.placement, given), given, by_node)
    if isinstance(found, Refusal):
        why = f"ranks follow the pods' numbers: {found.reason}"
        return Ranked(tuple(pods), PlacementStatus(notes=why[:4096], retries=retries))
    lies = _status(found).model_copy(update={"retries": retries})
    return Ranked(tuple(by_node[node] for ring in found.rings for node in ring), lies)


def _as_far_as_can_be(wish: Wish, given: Ground) -> Wish:
    """Of nodes that are given nothing can be required, but that rings cross what they should not is to be told."""
    within = wish.within
    if within is None or find_level(given.topology.levels, within.level) is None:
        return wish.model_copy(update={"within": None})
    return wish.model_copy(update={"within": within.model_copy(update={"policy": "preferred"})})


def _status(found: Placement) -> PlacementStatus:
    return PlacementStatus(
        hops=tuple(HopsStatus(level=level, hops=hops) for level, hops in found.hops),
        cost=found.cost,
        lower_bound=found.lower_bound,
        notes="; ".join(found.notes)[:4096],
    )


def rank_table(view: View, pods: Sequence[PodFacts], epoch: int) -> RankTable:
    """Only when every pod is bound and its agent answers. The first member's pod hosts the rendezvous."""
    return RankTable(
        epoch=epoch,
        job_uid=view.identity.uid,
        world_size=view.plan.world_size,
        degrees=view.plan.degrees,
        master=Master(pods[0].address, view.fresh.port),
        token=view.fresh.token,
        members=tuple(_member(view, number, pod) for number, pod in enumerate(pods)),
        restarts=view.status.restarts.total,
    )


def ranks_manifest(view: View, table: RankTable) -> Manifest:
    return ranks_map(view.job, view.place, table.to_json())


def _member(view: View, number: int, pod: PodFacts) -> Member:
    ranks = view.plan.ranks_of(number)
    ring, position = view.plan.ring_of(ranks.start)
    return Member(pod.name, pod.node, pod.address, ranks.start, len(ranks), ring, position)
