"""Nodes that only the API server knows, and kwok, which plays the pods that are bound to them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from clusterkit import nodes
from clusterkit.cluster import Cluster
from clusterkit.component import Component
from clusterkit.kubectl import Kubectl
from clusterkit.nodes import Grid, Machine
from processes import wait_until

SHAPE = Grid(racks=2, nodes=2, nvlink=2)


@pytest.fixture
def fleet(cluster: Cluster, kwok: Component) -> Iterator[list[str]]:
    """Four nodes in two racks."""
    made = nodes.grid(SHAPE, prefix="sim")
    names = [manifest["metadata"]["name"] for manifest in made]
    nodes.create(cluster.kubeconfig, made)
    yield names
    nodes.delete(cluster.kubeconfig, names)


def test_pods_are_bound_and_run_at_loopback_addresses(kubectl: Kubectl, fleet: list[str]):
    kubectl.create(*(_pod(f"p-{number}", gpus=8) for number in range(4)))
    kubectl("wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s")
    pods = kubectl.json("get", "pods")["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(fleet)  # one has room for eight GPUs
    addresses = {ipaddress.ip_address(pod["status"]["podIP"]) for pod in pods}
    assert len(addresses) == 4
    assert all(address.is_loopback for address in addresses)
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}


def test_init_containers_have_ended_and_containers_run(kubectl: Kubectl, fleet: list[str]):
    kubectl.create(_pod("p", init=True))
    kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    status = kubectl.json("get", "pod", "p")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert "running" in status["containerStatuses"][0]["state"]


def test_a_pod_that_does_not_fit_waits(kubectl: Kubectl, fleet: list[str]):
    kubectl.create(_pod("p", gpus=9))
    kubectl("wait", "pod/p", "--for=condition=PodScheduled=false", "--timeout=30s")
    assert "Insufficient nvidia.com/gpu" in kubectl("get", "pod", "p", "--output=yaml")


def test_a_pod_can_end_by_itself(kubectl: Kubectl, fleet: list[str]):
    kubectl.create(_pod("p", annotations={"ring-test/succeed-after": "100ms"}))
    kubectl("wait", "pod/p", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    ended = kubectl.json("get", "pod", "p")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 0


def test_a_deleted_pod_goes(kubectl: Kubectl, fleet: list[str]):
    kubectl.create(_pod("p"))
    kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    kubectl("delete", "pod", "p", "--timeout=30s")
    assert kubectl.json("get", "pods")["items"] == []


def test_a_lost_node_is_tainted_and_its_pods_stay(cluster: Cluster, kubectl: Kubectl, fleet: list[str]):
    kubectl.create(_pod("p", node=fleet[0]))
    kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    nodes.lose(cluster.kubeconfig, fleet[0])
    wait_until(lambda: "node.kubernetes.io/unreachable" in _taints(kubectl, fleet[0]), 30, "the node is tainted")
    kubectl("delete", "pod", "p", "--wait=false")
    assert kubectl.json("get", "pod", "p")["metadata"]["deletionTimestamp"]
    nodes.recover(cluster.kubeconfig, fleet[0])
    kubectl("wait", "pod/p", "--for=delete", "--timeout=30s")
    wait_until(lambda: not _taints(kubectl, fleet[0]), 30, "the taints are gone")


def test_a_cordoned_node_takes_no_pods(cluster: Cluster, kubectl: Kubectl, fleet: list[str]):
    for name in fleet[1:]:
        nodes.cordon(cluster.kubeconfig, name)
    kubectl.create(_pod("a"))
    kubectl("wait", "pod/a", "--for=condition=Ready", "--timeout=60s")
    assert kubectl.json("get", "pod", "a")["spec"]["nodeName"] == fleet[0]


def test_nodes_come_by_the_thousand(cluster: Cluster, kubectl: Kubectl):
    made = nodes.grid(Grid(zones=2, spines=5, racks=10, nodes=10), Machine(gpus=4), prefix="many")
    names = [manifest["metadata"]["name"] for manifest in made]
    nodes.create(cluster.kubeconfig, made)
    try:
        listed = kubectl.json("get", "nodes", "--selector=topology.kubernetes.io/zone=zone-1")["items"]
        assert len(listed) == 500
    finally:
        nodes.delete(cluster.kubeconfig, names)


def _taints(kubectl: Kubectl, name: str) -> set[str]:
    return {taint["key"] for taint in kubectl.json("get", "node", name)["spec"].get("taints", [])}


def _pod(
    name: str, *, gpus: int = 0, init: bool = False, node: str = "", annotations: dict[str, str] | None = None
) -> dict[str, object]:
    container = {"name": "c", "image": "none", "resources": {"limits": {nodes.GPU: str(gpus)}} if gpus else {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {**nodes.SIMULATED, **({"kubernetes.io/hostname": node} if node else {})},
            "initContainers": [{"name": "i", "image": "none"}] if init else [],
            "containers": [container],
        },
    }
