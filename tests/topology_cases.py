"""Nodes and pods as `kubectl get -o json` shows them, in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ring_operator.topology import Node, Topology, node_of, topology_of

Raw = dict[str, Any]

ROOM = {"cpu": "191450m", "memory": "2113461896Ki", "ephemeral-storage": "1853893404Ki", "pods": "110"}
H100 = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.count": "8",
    "nvidia.com/gpu.memory": "81559",
}


def raw_node(name: str, gpus: int = 8, **more: Any) -> Raw:
    """`labels`, `taints`, `cordoned`, `ready`, `room` as they are wanted otherwise."""
    labels: Mapping[str, str] = more.get("labels", {})
    spec: Raw = {"podCIDR": "10.2.3.0/24", "providerID": f"aws:///us-east-2a/{name}"}
    if more.get("cordoned"):
        spec["unschedulable"] = True
    if more.get("taints"):
        spec["taints"] = more["taints"]
    conditions = [
        {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
        {"type": "Ready", "status": more.get("ready", "True"), "reason": "KubeletReady"},
    ]
    room = {**ROOM, **more.get("room", {}), **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    found = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", **(H100 if gpus else {}), **labels}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": found, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
        "status": {"allocatable": room, "capacity": room, "conditions": conditions},
    }


def raw_pod(name: str, node: str = "", requests: Mapping[str, str] | None = None, **more: Any) -> Raw:
    """`phase`, `labels`, and fields of its spec."""
    container = {"name": "main", "image": "image", "resources": {"requests": dict(requests or {})}}
    phase, labels = more.pop("phase", "Running"), more.pop("labels", {})
    spec = {"containers": [container], **({"nodeName": node} if node else {}), **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "labels": labels},
        "spec": spec,
        "status": {"phase": phase},
    }


def pinned(*nodes: str, operator: str = "In") -> Raw:
    """Affinity for just these nodes, by name."""
    row = {"key": "metadata.name", "operator": operator, "values": list(nodes)}
    required = {"nodeSelectorTerms": [{"matchFields": [row]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def labelled(*places: Mapping[str, str], gpus: int = 8) -> list[Node]:
    """Nodes a, b, c... with these labels."""
    return [node_of(raw_node(chr(ord("a") + i), gpus, labels=labels)) for i, labels in enumerate(places)]


def tree(*places: Mapping[str, str], levels: Sequence[str] = (), gpus: int = 8) -> Topology:
    return topology_of(labelled(*places, gpus=gpus), levels)


def level_names(topology: Topology) -> list[str]:
    return [level.name for level in topology.levels]


def domains(topology: Topology) -> list[tuple[str, ...]]:
    return [site.domains for site in topology.sites]
