"""Nodes, what pods take of them, what one pod of a job asks for -> the nodes that are free, and why the others are not.

`free_sites` counts everything that is on a node already, pods that are pinned to it but not bound yet included. A node
that is refused has one reason, the first that holds, from what no waiting mends to what a finished pod would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ring_operator import names
from ring_operator.raw import Raw, items, mapping, text
from ring_operator.topology.nodes import Node, Taint
from ring_operator.topology.pods import Usage, kept_off, requests_of
from ring_operator.topology.quantity import UNIT, Amounts, plain
from ring_operator.topology.tree import Site, Topology

GPU = names.GPU_RESOURCE


@dataclass(frozen=True, slots=True)
class Toleration:
    """Empty `key` with Exists: every taint. Empty `effect`: every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return not self.key or self.key == taint.key
        return self.operator in ("Equal", "") and self.key == taint.key and self.value == taint.value


@dataclass(frozen=True, slots=True)
class Ask:
    """What one pod of a job needs of its node. `takes`: resources, its GPUs among them."""

    takes: Amounts = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    excluded: frozenset[str] = frozenset()


def ask_of(pod: Raw) -> Ask:
    """From the pod's manifest as it will be created, so that what is looked for is what will be asked for."""
    spec = mapping(pod, "spec")
    selector = {str(key): str(value) for key, value in mapping(spec, "nodeSelector").items()}
    tolerations = tuple(_toleration(raw) for raw in items(spec, "tolerations"))
    return Ask(requests_of(pod), selector, tolerations, kept_off(spec))


def _toleration(raw: Raw) -> Toleration:
    return Toleration(text(raw, "key"), text(raw, "operator") or "Equal", text(raw, "value"), text(raw, "effect"))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node is not free: `is cordoned`, `has 4 of 8 GPUs free`; `verb` is of one node."""

    verb: Literal["is", "has", "does"]
    rest: str

    def of(self, count: int) -> str:
        plural = {"is": "are", "has": "have", "does": "do"}
        return f"{self.verb if count == 1 else plural[self.verb]} {self.rest}"


@dataclass(frozen=True, slots=True)
class Free:
    """`sites`: free nodes, in the order of the nodes. `refused`: every other node, and why."""

    sites: tuple[Site, ...]
    refused: Mapping[str, Reason]

    @property
    def counts(self) -> tuple[tuple[Reason, int], ...]:
        """Reasons by how many nodes they hold for, the most frequent first."""
        found = Counter(self.refused.values())
        return tuple(sorted(found.items(), key=lambda item: (-item[1], item[0].verb, item[0].rest)))

    def why_not(self, most: int = 6) -> str:
        """`12 nodes are cordoned; 3 have 4 of 8 GPUs free`; empty where all nodes are free."""
        return why_not(self.counts, most)


def why_not(counts: Sequence[tuple[Reason, int]], most: int = 6) -> str:
    parts = [f"{count:,}{_nodes(count) if i == 0 else ''} {r.of(count)}" for i, (r, count) in enumerate(counts[:most])]
    if others := counts[most:]:
        rest, reasons = sum(count for _, count in others), len(others)
        why = "another reason" if reasons == 1 else f"{reasons} other reasons"
        parts.append(f"{rest:,} {'is' if rest == 1 else 'are'} refused for {why}")
    return "; ".join(parts)


def _nodes(count: int) -> str:
    return " node" if count == 1 else " nodes"


def free_sites(topology: Topology, nodes: Iterable[Node], usages: Iterable[Usage], ask: Ask) -> Free:
    """Which of the nodes could take one pod of the job now."""
    return free_in(topology, nodes, taken_by(usages), ask)


def free_in(topology: Topology, nodes: Iterable[Node], taken: Mapping[str, Amounts], ask: Ask) -> Free:
    """As `free_sites`, where what is taken of every node is known already."""
    sites = topology.by_name
    free: list[Site] = []
    refused: dict[str, Reason] = {}
    for node in nodes:
        reason = unfit(node, ask) or _lack(node, taken.get(node.name, {}), ask)
        if reason is not None:
            refused[node.name] = reason
        elif node.name in sites:
            free.append(sites[node.name])
    return Free(tuple(free), refused)


def taken_by(usages: Iterable[Usage]) -> dict[str, dict[str, int]]:
    """Node -> resource -> what all its pods take together."""
    taken: dict[str, dict[str, int]] = {}
    for usage in usages:
        total = taken.setdefault(usage.node, {})
        for name, amount in usage.takes.items():
            total[name] = total.get(name, 0) + amount
    return taken


def unfit(node: Node, ask: Ask) -> Reason | None:
    """Why a node would be refused even if it were empty."""
    if node.name in ask.excluded:
        return Reason("is", "excluded by the job")
    for key, value in ask.selector.items():
        if node.labels.get(key) != value:
            return Reason("does", f"not have the label {key}={value}")
    if node.cordoned:
        return Reason("is", "cordoned")
    if not node.ready:
        return Reason("is", "not ready")
    taint = _not_tolerated(node.taints, ask.tolerations)
    return Reason("has", f"the taint {taint}, which is not tolerated") if taint else None


def _not_tolerated(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> Taint | None:
    """PreferNoSchedule is a wish, no refusal."""
    for taint in taints:
        if taint.effect != "PreferNoSchedule" and not any(t.covers(taint) for t in tolerations):
            return taint
    return None


def _lack(node: Node, taken: Amounts, ask: Ask) -> Reason | None:
    """What there is too little of. GPUs first: they are what people look for."""
    if GPU in ask.takes and (reason := _gpus_lack(node, taken.get(GPU, 0), ask)) is not None:
        return reason
    for name, wanted in ask.takes.items():
        room = node.allocatable.get(name, 0)
        if name != GPU and wanted > 0 and room - taken.get(name, 0) < wanted:
            return _too_little(name, wanted, room)
    return None


def _gpus_lack(node: Node, used: int, ask: Ask) -> Reason | None:
    has, wanted = node.allocatable.get(GPU, 0), ask.takes[GPU]
    if wanted <= 0 or has - used >= wanted:
        return None
    if not has:
        return Reason("has", "no GPUs")
    if has < wanted:
        return Reason("has", f"{has // UNIT} GPUs, fewer than the {wanted // UNIT} asked for")
    return Reason("has", f"{max(0, has - used) // UNIT} of {has // UNIT} GPUs free")


def _too_little(name: str, wanted: int, room: int) -> Reason:
    if name == "pods":
        return Reason("has", "no room for another pod")
    if not room:
        return Reason("has", f"no {name}")
    if room < wanted:
        return Reason("has", f"less {name} than the {plain(wanted)} asked for")
    return Reason("has", f"less {name} free than the {plain(wanted)} asked for")
