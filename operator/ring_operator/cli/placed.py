"""A plan on a network: which nodes its rings would get now, as text, plain values or a picture."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ring_operator.cli.drawing import draw, lay_out, states_of
from ring_operator.cli.drawing.rings import rings_over
from ring_operator.cli.network import Network
from ring_operator.errors import refuse
from ring_operator.placement import Ground, Placement, Refusal, find
from ring_operator.plan import ParallelPlan
from ring_operator.render import Slot, cluster_place, pod
from ring_operator.spec import TrainingJob
from ring_operator.topology import Topology, ask_of, free_sites, topology_of

_NODES_SHOWN = 8
_RINGS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """`why_not`: why nodes are not free. `order`: nodes in the order of the ranks that they get."""

    plan: ParallelPlan
    network: Network
    topology: Topology
    placement: Placement
    free: int
    why_not: str

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(node for ring in self.placement.rings for node in ring)


def gpus_of(network: Network) -> int:
    """GPUs of a node, where the manifest says auto: what most nodes that have any have."""
    counts = Counter(node.gpus for node in network.nodes if node.gpus)
    return max(counts, key=lambda gpus: (counts[gpus], gpus), default=0)


def placed(job: TrainingJob, plan: ParallelPlan, network: Network, exclude: Sequence[str]) -> Placed:
    """As the operator would at this moment. Raises UserError where there is no placement."""
    wish = job.spec.placement
    topology = topology_of(network.nodes, wish.levels)
    example = pod(job, plan, cluster_place(job, "", "worker"), Slot(0, avoid=tuple(exclude)))
    free = free_sites(topology, network.nodes, network.usages, ask_of(example))
    found = find(plan, wish, Ground(topology, free.sites, free.why_not()))
    if isinstance(found, Refusal):
        raise refuse("spec.placement", found.reason, found.instead)
    return Placed(plan, network, topology, found, len(free.sites), free.why_not())


def document_of(found: Placed, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan's plain values, and where everything would be."""
    p = found.placement
    nodes = {ring.index: list(found.plan.nodes_of(ring, found.order)) for ring in found.plan.rings}
    return {
        **plan,
        "rings": [{**ring, "nodes": nodes[ring["index"]]} for ring in plan["rings"]],
        "nodeOrder": list(found.order),
        "hops": dict(p.hops),
        "cost": p.cost,
        "lowerBound": p.lower_bound,
        "gap": p.gap,
        "weights": dict(zip([name for name, _ in p.hops], p.weights, strict=True)),
        "crossing": dict(p.crossing),
        "pipelineCost": p.pipeline_cost,
        "dataCost": p.data_cost,
        "gpuProduct": p.kind,
        "unknownPlaces": list(p.unknown),
        "freeNodes": found.free,
        "whyNotFree": found.why_not,
        "placementNotes": [*p.notes, *found.network.notes],
    }


def rows_of(found: Placed) -> Iterator[tuple[str, str]]:
    """Label and text of every line for people."""
    p = found.placement
    why = f"; {found.why_not}" if found.why_not else ""
    yield "nodes", f"{len(found.order)} of {found.free} free ones of {found.network.source}{why}"
    for number, ring in enumerate(p.rings[:_RINGS_SHOWN]):
        yield ("placed" if number == 0 else ""), f"{number}: {_around(ring)}"
    if len(p.rings) > _RINGS_SHOWN:
        yield "", f"and {len(p.rings) - _RINGS_SHOWN:,} groups more"
    weights = dict(zip([name for name, _ in p.hops], p.weights, strict=True))
    said = ", ".join(f"{hops} cross {level} (x {weights[level]:g})" for level, hops in p.hops if hops)
    yield "hops", said or "none: no ring leaves its node"
    proof = "which is the least there can be" if p.gap < 1e-9 else f"at least {p.lower_bound:g}: within {p.gap:.1%}"
    yield "cost", f"{p.cost:g}, {proof}"
    for note in (*p.notes, *found.network.notes):
        yield "note", note


def _around(ring: Sequence[str]) -> str:
    if len(ring) == 1:
        return f"{ring[0]} alone"
    shown = ring if len(ring) <= _NODES_SHOWN else (*ring[:4], "...", *ring[-2:])
    return f"{' > '.join(shown)} > {ring[0]}"


def svg_of(found: Placed) -> str:
    """The network with the rings drawn through it."""
    picture = lay_out(found.topology)
    states = states_of(found.network.nodes, found.network.usages)
    return draw(found.topology, picture, states, _title(found), rings_over(picture, found.placement.rings))


def _title(found: Placed) -> str:
    p = found.placement
    hops = ", ".join(f"{hops} {level}" for level, hops in p.hops if hops) or "none"
    rings = f"{len(p.rings)} rings of {len(p.rings[0])} nodes"
    return f"{found.plan.job}: {rings}; hops: {hops}; cost {p.cost:g}, at least {p.lower_bound:g}"


def html_of(found: Placed) -> str:
    """A page of its own: the picture, and the same as text below it."""
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows_of(found))
    style = "body{font-family:sans-serif;margin:2em}th{text-align:left;padding-right:1em;vertical-align:top}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(found.plan.job)}</title>'
        f"<style>{style}svg{{max-width:100%;height:auto}}</style></head><body>\n{svg_of(found)}\n"
        f"<table>{rows}</table></body></html>\n"
    )
