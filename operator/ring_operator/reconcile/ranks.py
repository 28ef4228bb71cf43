"""Bound pods -> the rank table of an epoch, and the ConfigMap that carries it."""

from __future__ import annotations

from ring_operator.observe.pods import PodFacts
from ring_operator.reconcile.view import View
from ring_operator.render import Manifest, ranks_map
from ring_worker.contract import Master, Member, RankTable


def rank_table(view: View, epoch: int) -> RankTable:
    """Only when every pod is bound and its agent answers. The first member's pod hosts the rendezvous."""
    pods = in_rank_order(view)
    return RankTable(
        epoch=epoch,
        job_uid=view.identity.uid,
        world_size=view.plan.world_size,
        degrees=view.plan.degrees,
        master=Master(pods[0].address, view.fresh.port),
        token=view.fresh.token,
        members=tuple(_member(view, place, pod) for place, pod in enumerate(pods)),
        restarts=view.status.restarts.total,
    )


def in_rank_order(view: View) -> list[PodFacts]:
    """The pods in the order of the ranks that they get. Their index decides; a placement orders them by the network."""
    return [view.by_name[name] for name in view.names]


def ranks_manifest(view: View, table: RankTable) -> Manifest:
    return ranks_map(view.job, view.place, table.to_json())


def _member(view: View, place: int, pod: PodFacts) -> Member:
    ranks = view.plan.ranks_of(place)
    ring, position = view.plan.ring_of(ranks.start)
    return Member(pod.name, pod.node, pod.address, ranks.start, len(ranks), ring, position)
