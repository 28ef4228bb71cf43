"""A control plane, simulated nodes, fake agents and one operator, for a part of the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the test cluster's kit

from clusterkit import nodes
from clusterkit.cluster import Cluster, open_cluster
from clusterkit.commands import Settings
from clusterkit.component import Component
from clusterkit.fake_agents import FakeAgents
from clusterkit.fake_job import Course
from clusterkit.install import install
from clusterkit.jobs import CLAIM, VOLUME, manifest
from clusterkit.kube import Kube
from clusterkit.nodes import Grid, Machine
from clusterkit.operator_process import operator_component

NAMESPACE = "bench"
APPLY = "application/apply-patch+yaml"
JOBS = f"/apis/ringtraining.dev/v1alpha1/namespaces/{NAMESPACE}/ringtrainingjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass(frozen=True)
class World:
    cluster: Cluster
    account: Path
    agents: FakeAgents
    folder: Path

    @contextlib.contextmanager
    def operator(self) -> Iterator[Component]:
        component = operator_component(self.account, self.folder, "operator", "--log-level=warning")
        try:
            yield component
        finally:
            component.kill()

    def run(self, work: Callable[[Kube], Any]) -> Any:
        """`work` with a client of 64 connections."""

        async def body() -> Any:
            async with Kube(self.cluster.kubeconfig, 64) as kube:
                return await work(kube)

        return asyncio.run(body())


@contextlib.contextmanager
def world(machines: int) -> Iterator[World]:
    """With room for 110 pods on each of the machines; jobs keep their own pods apart."""
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as name:
        folder = Path(name)
        with open_cluster(folder / "cluster", Settings(endpoint_slices=False)) as cluster, cluster.kwok():
            install(cluster.kubectl)
            there = nodes.grid(Grid(racks=max(1, machines // 16), nodes=16), Machine(gpus=0, cpu="4096", memory="64Ti"))
            nodes.create(cluster.kubeconfig, there[:machines])
            claim = {**CLAIM["spec"], "volumeName": NAMESPACE, "storageClassName": ""}
            cluster.kubectl.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                {**VOLUME, "metadata": {"name": NAMESPACE}},
                {**CLAIM, "metadata": {"name": "shared", "namespace": NAMESPACE}, "spec": claim},
            )
            account = cluster.as_service_account("ring-system", "ring-training-operator")
            with FakeAgents(cluster.kubeconfig, Course(step_seconds=5.0)) as agents:
                yield World(cluster, account, agents, folder)


async def create_jobs(kube: Kube, count: int, pods: int) -> None:
    """`job-0`, `job-1`, ..."""

    async def one(number: int) -> None:
        await kube.request("POST", JOBS, manifest(f"job-{number}", pods=pods))

    await _at_once(range(count), one)


async def _at_once(items: Any, act: Callable[[Any], Any], width: int = 64) -> None:
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())


async def create_bare_pods(kube: Kube, template: dict[str, Any], count: int) -> float:
    """Pods a second that a client creates which does nothing else: the same pods, under other names."""

    async def one(number: int) -> None:
        await kube.request("POST", PODS, {**template, "metadata": {**template["metadata"], "name": f"bare-{number}"}})

    began = time.perf_counter()
    await _at_once(range(count), one)
    return count / (time.perf_counter() - began)


def numbers(operator: Component) -> dict[str, float]:
    """The operator's own metrics; series summed over their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
            bare = name.partition("{")[0]
            if bare != name:
                found[bare] = found.get(bare, 0.0) + float(value)
    return found


def memory_mib(operator: Component) -> float:
    """Most that it ever held."""
    status = Path(f"/proc/{operator.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def cpu_seconds(operator: Component) -> float:
    fields = Path(f"/proc/{operator.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def until(look: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: not within {seconds:.0f} s: {what}")
        time.sleep(0.2)
