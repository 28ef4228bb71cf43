"""A node as Kubernetes gives it -> the few facts that placement needs, small enough to hold for 10,000 nodes.

Never raises for what an object holds. Label keys and values that nodes share are kept once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ring_operator import names
from ring_operator.raw import Raw, items, mapping, text
from ring_operator.topology.quantity import UNIT, Amounts, amounts

# What tells one GPU from another, best first. Clouds without NVIDIA's GPU feature discovery say it in their own way.
PRODUCT_KEYS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "node.kubernetes.io/instance-type")
HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Taint:
    """`effect`: NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Node:
    """`ready`: its kubelet reports, and says that it can run pods. `allocatable`: what all its pods together may take.

    `kind`: product of its GPUs; empty where it has none.
    """

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    cordoned: bool = False
    kind: str = ""

    @property
    def gpus(self) -> int:
        return self.allocatable.get(names.GPU_RESOURCE, 0) // UNIT


def node_of(raw: Raw) -> Node:
    metadata, spec, status = mapping(raw, "metadata"), mapping(raw, "spec"), mapping(raw, "status")
    labels = _labels(metadata)
    room = {sys.intern(name): amount for name, amount in amounts(status, "allocatable").items()}
    return Node(
        name=text(metadata, "name"),
        labels=labels,
        allocatable=room,
        taints=tuple(_taint(taint) for taint in items(spec, "taints")) if "taints" in spec else (),
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in items(status, "conditions")),
        cordoned=spec.get("unschedulable") is True,
        kind=_kind(labels) if room.get(names.GPU_RESOURCE) else "",
    )


def _labels(metadata: Raw) -> dict[str, str]:
    """Numbers are what hand-written YAML makes of values without quotes."""
    found = mapping(metadata, "labels").items()
    strings = ((key, value if type(value) is str else str(value)) for key, value in found if type(value) in (str, int))
    return {sys.intern(str(key)): sys.intern(value) for key, value in strings}


def _kind(labels: Mapping[str, str]) -> str:
    return next((labels[key] for key in PRODUCT_KEYS if labels.get(key)), "")


def _taint(raw: Raw) -> Taint:
    return Taint(text(raw, "key"), text(raw, "value"), sys.intern(text(raw, "effect")))
