"""Nodes that only the API server knows: racks, spines, zones, NVLink domains, GPUs, taints; thousands in seconds.

`grid` and `node` are pure: they give manifests, complete with the status that a kubelet would report. `create`, `lose`,
`recover` and the rest talk to the API server. Pods on such nodes are played by kwok (`clusterkit.kwok`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clusterkit.kube import MERGE, STRATEGIC, Kube, KubeError

Manifest = dict[str, Any]

SIMULATED = {"type": "kwok"}  # the label by which kwok knows its nodes
ADDRESSES = ipaddress.ip_network("127.8.0.0/13")
NVLINK = "nvidia.com/gpu.clique"
GPU = "nvidia.com/gpu"

TOPOGRAPH = {
    "zone": "topology.kubernetes.io/zone",
    "spine": "fabric.topograph.run/tier-1",
    "rack": "fabric.topograph.run/tier-0",
    "nvlink": NVLINK,
}
TOPOGRAPH_0 = {
    "zone": "topology.kubernetes.io/zone",
    "spine": "network.topology.nvidia.com/spine",
    "rack": "network.topology.nvidia.com/leaf",
    "nvlink": NVLINK,
}
AWS = {
    "zone": "topology.k8s.aws/network-node-layer-1",
    "spine": "topology.k8s.aws/network-node-layer-2",
    "rack": "topology.k8s.aws/network-node-layer-3",
}


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Machine:
    """What each node has to give."""

    gpus: int = 8
    cpu: str = "64"
    memory: str = "512Gi"
    pods: int = 110


@dataclass(frozen=True, slots=True)
class Grid:
    """So many of each in the next wider one. `nvlink`: nodes of one rack that share an NVLink domain; 0: none do.

    `labels`: level -> key; a level that is left out gets no label.
    """

    zones: int = 1
    spines: int = 1
    racks: int = 2
    nodes: int = 4
    nvlink: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: TOPOGRAPH)


def grid(shape: Grid, machine: Machine | None = None, prefix: str = "node") -> list[Manifest]:
    """Every node of the grid, named `PREFIX-0`, `PREFIX-1`, ... rack by rack."""
    places = [
        (zone, spine, rack, place)
        for zone in range(shape.zones)
        for spine in range(shape.spines)
        for rack in range(shape.racks)
        for place in range(shape.nodes)
    ]
    return [
        node(f"{prefix}-{number}", labels=_labels(shape, *place), machine=machine, number=number)
        for number, place in enumerate(places)
    ]


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
    machine: Machine | None = None,
    number: int = 0,
) -> Manifest:
    """A Ready node. `number` gives it an address of its own."""
    resources = _resources(machine or Machine())
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **SIMULATED, **(labels or {})}},
        "spec": {"taints": [dict(taint) for taint in taints]} if taints else {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": str(ADDRESSES[number + 1])},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [condition("True")],
            "nodeInfo": _NODE_INFO,
        },
    }


def taint(key: str, value: str = "", effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": key, "value": value, "effect": effect}


def condition(ready: str) -> Manifest:
    """The node's Ready condition: "True", "False" or "Unknown"."""
    reason = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}[ready]
    return {"type": "Ready", "status": ready, "reason": reason, "message": "simulated"}


def create(kubeconfig: Path, nodes: Iterable[Manifest], parallel: int = 32) -> None:
    """Those that exist already stay as they are."""

    async def one(kube: Kube, manifest: Manifest) -> None:
        try:
            await kube.request("POST", "/api/v1/nodes", manifest)
        except KubeError as error:
            if error.status != 409:
                raise

    asyncio.run(_each(kubeconfig, nodes, one, parallel))


def delete(kubeconfig: Path, names: Iterable[str], parallel: int = 32) -> None:
    """Those that are gone already are no error."""

    async def one(kube: Kube, name: str) -> None:
        try:
            await kube.request("DELETE", f"/api/v1/nodes/{name}")
        except KubeError as error:
            if error.status != 404:
                raise

    asyncio.run(_each(kubeconfig, names, one, parallel))


def set_ready(kubeconfig: Path, name: str, ready: str) -> None:
    """Report the Ready condition; Kubernetes then sets or removes the taints that go with it."""
    patch = {"status": {"conditions": [condition(ready)]}}
    asyncio.run(_each(kubeconfig, [name], _patch(patch, STRATEGIC, "/status")))


def lose(kubeconfig: Path, name: str) -> None:
    """As if its power failed: nobody plays its pods any more, and it is no longer Ready."""
    patch = {"metadata": {"labels": dict.fromkeys(SIMULATED)}}
    asyncio.run(_each(kubeconfig, [name], _patch(patch, MERGE)))
    set_ready(kubeconfig, name, "Unknown")


def recover(kubeconfig: Path, name: str) -> None:
    """The opposite of `lose`."""
    asyncio.run(_each(kubeconfig, [name], _patch({"metadata": {"labels": SIMULATED}}, MERGE)))
    set_ready(kubeconfig, name, "True")


def cordon(kubeconfig: Path, name: str, on: bool = True) -> None:
    asyncio.run(_each(kubeconfig, [name], _patch({"spec": {"unschedulable": on}}, MERGE)))


_NODE_INFO = {
    "architecture": "amd64",
    "bootID": "",
    "containerRuntimeVersion": "simulated",
    "kernelVersion": "simulated",
    "kubeProxyVersion": "",
    "kubeletVersion": "simulated",
    "machineID": "",
    "operatingSystem": "linux",
    "osImage": "simulated",
    "systemUUID": "",
}


def _labels(shape: Grid, zone: int, spine: int, rack: int, place: int) -> dict[str, str]:
    spine_name, rack_name = f"spine-{zone}-{spine}", f"rack-{zone}-{spine}-{rack}"
    values = {"zone": f"zone-{zone}", "spine": spine_name, "rack": rack_name}
    if shape.nvlink:
        cluster = uuid.uuid5(uuid.NAMESPACE_DNS, rack_name)
        values["nvlink"] = f"{cluster}.{place // shape.nvlink}"
    return {shape.labels[level]: value for level, value in values.items() if level in shape.labels}


def _resources(machine: Machine) -> dict[str, str]:
    gpus = {GPU: str(machine.gpus)} if machine.gpus else {}
    plain = {"cpu": machine.cpu, "memory": machine.memory, "ephemeral-storage": "1Ti", "pods": str(machine.pods)}
    return {**plain, **gpus}


def _patch(patch: Manifest, kind: str, subresource: str = "") -> Callable[[Kube, str], Awaitable[None]]:
    async def one(kube: Kube, name: str) -> None:
        await kube.request("PATCH", f"/api/v1/nodes/{name}{subresource}", patch, kind)

    return one


async def _each(
    kubeconfig: Path, items: Iterable[Item], act: Callable[[Kube, Item], Awaitable[None]], parallel: int = 1
) -> None:
    """`act` on every item, `parallel` at a time. The first error ends it."""
    waiting = iter(list(items))

    async def work(kube: Kube) -> None:
        for item in waiting:
            await act(kube, item)

    async with Kube(kubeconfig, parallel) as kube, asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work(kube))
