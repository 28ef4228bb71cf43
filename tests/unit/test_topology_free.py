"""Nodes and pods as they are in a cluster -> what is taken, what is free, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring_operator import names
from ring_operator.topology import Ask, Reason, Usage, ask_of, free_sites, node_of, topology_of, usage_of
from ring_operator.topology.free import why_not
from ring_operator.topology.pods import requests_of
from ring_operator.topology.quantity import UNIT, plain, quantity
from topology_cases import pinned, raw_node, raw_pod

GPU = names.GPU_RESOURCE
WORDS = (
    "metadata spec status labels name taints key conditions type allocatable containers initContainers resources "
    "requests affinity nodeAffinity phase requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms matchFields "
    "values cpu"
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS.split()), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("text, billionths", [
    ("1", UNIT), ("0", 0), ("100m", UNIT // 10), ("1500m", 3 * UNIT // 2), ("1.5", 3 * UNIT // 2), (".5", UNIT // 2),
    ("5.", 5 * UNIT), ("+2", 2 * UNIT), ("-1", -UNIT), ("7n", 7), ("3u", 3_000), ("1k", 1000 * UNIT),
    ("1M", 10**6 * UNIT), ("1Ki", 1024 * UNIT), ("1.5Gi", 3 * 2**29 * UNIT), ("64Ti", 2**46 * UNIT),
    ("2113461896Ki", 2113461896 * 1024 * UNIT), ("1e3", 1000 * UNIT), ("1E3", 1000 * UNIT), ("1E", 10**18 * UNIT),
    ("2e-3", UNIT // 500), ("0.1n", 1), ("1e-20", 1), ("1e9999", (2**63 - 1) * UNIT), ("99Ei", (2**63 - 1) * UNIT),
    (8, 8 * UNIT), (0.5, UNIT // 2),
    ("", None), ("Gi", None), ("1 Gi", None), ("1ki", None), ("1K", None), ("0x1", None), (".", None), ("1e", None),
    ("\u0661", None), ("1\n", None), (None, None), (True, None), ([], None),
])  # fmt: skip
def test_quantities_are_read_exactly(text: Any, billionths: int | None) -> None:
    assert quantity(text) == billionths


def test_quantities_for_people() -> None:
    assert [plain(quantity(q) or 0) for q in ("12", "500m", "64Gi", "2Ti")] == ["12", "0.5", "64Gi", "2048Gi"]


def needs(containers: list[Any], **spec: Any) -> dict[str, float]:
    """What a pod takes, but for its own place."""
    found = requests_of({"spec": {"containers": containers, **spec}})
    assert found.pop("pods") == UNIT
    return {name: amount / UNIT for name, amount in found.items()}


def box(cpu: str, name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}


def sidecar(cpu: str) -> dict[str, Any]:
    return box(cpu, "s", restartPolicy="Always")


@pytest.mark.parametrize("containers, spec, cpu", [
    ([box("1"), box("2")], {}, 3),
    ([box("1"), box("2")], {"initContainers": [box("2")]}, 3),
    ([box("1"), box("2")], {"initContainers": [box("5"), box("4")]}, 5),
    ([box("2")], {"initContainers": [sidecar("1")]}, 3),
    ([box("2")], {"initContainers": [sidecar("1"), box("4")]}, 5),
    ([box("2")], {"initContainers": [box("4"), sidecar("1")]}, 4),
    ([box("2")], {"initContainers": [sidecar("1"), box("4"), sidecar("3")]}, 6),
    ([box("2")], {"overhead": {"cpu": "250m"}}, 2.25),
    ([box("2")], {"initContainers": [box("3")], "overhead": {"cpu": "250m"}}, 3.25),
    ([box("2")], {"resources": {"requests": {"cpu": "7"}}}, 7),
    ([{"name": "c", "resources": {"limits": {"cpu": "3"}}}], {}, 3),
    ([{"name": "c", "resources": {"limits": {"cpu": "3"}, "requests": {"cpu": "1"}}}], {}, 1),
])  # fmt: skip
def test_a_pod_takes_what_the_scheduler_counts(containers: list[Any], spec: dict[str, Any], cpu: float) -> None:
    assert needs(containers, **spec) == {"cpu": cpu}


def test_a_pod_without_requests_takes_its_place() -> None:
    assert requests_of(raw_pod("a", "n")) == {"pods": UNIT}


def test_a_pod_that_is_made_smaller_takes_what_it_still_has() -> None:
    states = [{"name": "c", "allocatedResources": {"cpu": "4"}, "resources": {"requests": {"cpu": "3"}}}]
    found = requests_of({"spec": {"containers": [box("1")]}, "status": {"containerStatuses": states}})
    assert found["cpu"] == 4 * UNIT


@pytest.mark.parametrize("pod, node", [
    (raw_pod("a", "n1"), "n1"),
    (raw_pod("a"), None),
    (raw_pod("a", affinity=pinned("n2")), "n2"),
    (raw_pod("a", "n1", affinity=pinned("n2")), "n1"),
    (raw_pod("a", affinity=pinned("n1", "n2")), None),
    (raw_pod("a", affinity=pinned("n2", operator="NotIn")), None),
    (raw_pod("a", "n1", phase="Succeeded"), None),
    (raw_pod("a", "n1", phase="Failed"), None),
    (raw_pod("a", "n1", phase="Pending"), "n1"),
])  # fmt: skip
def test_which_node_a_pod_takes_from(pod: dict[str, Any], node: str | None) -> None:
    usage = usage_of(pod)
    assert (usage and usage.node) == node


def test_a_pod_pinned_to_either_of_two_terms_is_pinned_to_none() -> None:
    affinity = pinned("n1")
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    terms += pinned("n2")["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert usage_of(raw_pod("a", affinity=affinity)) is None


def test_pods_of_jobs_are_known() -> None:
    usage = usage_of(raw_pod("a-0", "n", {GPU: "8"}, labels={names.LABEL_JOB: "a"}))
    assert usage == Usage("n", {GPU: 8 * UNIT, "pods": UNIT}, "team/a")


def test_a_node_is_read() -> None:
    taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    node = node_of(raw_node("a", taints=[taint], cordoned=True, ready="Unknown"))
    assert (node.name, node.gpus, node.kind) == ("a", 8, "NVIDIA-H100-80GB-HBM3")
    assert (node.ready, node.cordoned, str(node.taints[0])) == (False, True, "nvidia.com/gpu=present:NoSchedule")
    assert node.allocatable["cpu"] == 191_450 * UNIT // 1000


@pytest.mark.parametrize("labels, gpus, kind", [
    ({"nvidia.com/gpu.product": "", "cloud.google.com/gke-accelerator": "nvidia-h200-141gb"}, 8, "nvidia-h200-141gb"),
    ({"nvidia.com/gpu.product": "", "node.kubernetes.io/instance-type": "p5.48xlarge"}, 8, "p5.48xlarge"),
    ({"node.kubernetes.io/instance-type": "c6i.8xlarge"}, 0, ""),
])  # fmt: skip
def test_kinds_of_gpus(labels: Mapping[str, str], gpus: int, kind: str) -> None:
    assert node_of(raw_node("a", gpus, labels=labels)).kind == kind


def reason(ask: Ask, *pods: dict[str, Any], **node: Any) -> str:
    """Why a node is not free; empty where it is."""
    found = node_of(raw_node("n", **node))
    usages = [usage for pod in pods if (usage := usage_of(pod)) is not None]
    return free_sites(topology_of([found]), [found], usages, ask).why_not()


def ask(gpus: int = 8, **more: Any) -> Ask:
    """Of a pod that asks for these GPUs; fields of its spec."""
    pod = raw_pod("j-0", "", {GPU: str(gpus)} if gpus else {}, **more)
    return ask_of(pod)


TAINT = {"key": "dedicated", "value": "ring", "effect": "NoSchedule"}
REFUSED = "1 node has the taint dedicated=ring:NoSchedule, which is not tolerated"


@pytest.mark.parametrize("taint, toleration, said", [
    ({}, {}, REFUSED),
    ({"effect": "NoExecute"}, {}, REFUSED.replace("NoSchedule", "NoExecute")),
    ({"effect": "PreferNoSchedule"}, {}, ""),
    ({}, {"key": "dedicated", "value": "ring"}, ""),
    ({}, {"key": "dedicated", "value": "ring", "effect": "NoSchedule"}, ""),
    ({}, {"key": "dedicated", "operator": "Equal", "value": "ring"}, ""),
    ({}, {"key": "dedicated", "value": "other"}, REFUSED),
    ({}, {"key": "dedicated", "value": "ring", "effect": "NoExecute"}, REFUSED),
    ({}, {"key": "dedicated", "operator": "Exists"}, ""),
    ({}, {"operator": "Exists"}, ""),
    ({}, {"operator": "Exists", "effect": "NoExecute"}, REFUSED),
    ({}, {"key": "other", "operator": "Exists"}, REFUSED),
    ({"value": ""}, {"key": "dedicated"}, ""),
])  # fmt: skip
def test_taints_and_tolerations(taint: dict[str, str], toleration: dict[str, str], said: str) -> None:
    wanted = ask(tolerations=[toleration] if toleration else [])
    assert reason(wanted, taints=[{**TAINT, **taint}]) == said


def test_one_taint_that_is_not_tolerated_is_enough() -> None:
    taints = [TAINT, {"key": "b", "effect": "NoExecute"}]
    wanted = ask(tolerations=[{"key": "dedicated", "operator": "Exists"}])
    assert reason(wanted, taints=taints) == "1 node has the taint b:NoExecute, which is not tolerated"


@pytest.mark.parametrize("wanted, pods, node, said", [
    (ask(), [], {}, ""),
    (ask(), [], {"cordoned": True}, "1 node is cordoned"),
    (ask(), [], {"ready": "False"}, "1 node is not ready"),
    (ask(), [], {"ready": "Unknown"}, "1 node is not ready"),
    (ask(affinity=pinned("n", "m", operator="NotIn")), [], {}, "1 node is excluded by the job"),
    (ask(nodeSelector={"pool": "a"}), [], {"labels": {"pool": "a"}}, ""),
    (ask(nodeSelector={"pool": "a"}), [], {"labels": {"pool": "b"}}, "1 node does not have the label pool=a"),
    (ask(8), [], {"gpus": 0}, "1 node has no GPUs"),
    (ask(8), [], {"gpus": 4}, "1 node has 4 GPUs, fewer than the 8 asked for"),
    (ask(8), [raw_pod("p", "n", {GPU: "4"})], {}, "1 node has 4 of 8 GPUs free"),
    (ask(4), [raw_pod("p", "n", {GPU: "4"})], {}, ""),
    (ask(8), [raw_pod("p", "other", {GPU: "4"})], {}, ""),
    (ask(8), [raw_pod("p", "n", {GPU: "4"}, phase="Succeeded")], {}, ""),
    (ask(8), [raw_pod("p", affinity=pinned("n"), requests={GPU: "1"})], {}, "1 node has 7 of 8 GPUs free"),
    (ask(8), [raw_pod("p", "n", {GPU: "9"})], {}, "1 node has 0 of 8 GPUs free"),
    (ask(0), [raw_pod("p", "n", {GPU: "8"})], {}, ""),
    (ask(0), [], {"gpus": 0}, ""),
    (ask_of(raw_pod("j", "", {"cpu": "192"})), [], {}, "1 node has less cpu than the 192 asked for"),
    (ask_of(raw_pod("j", "", {"cpu": "191"})), [], {}, ""),
    (ask_of(raw_pod("j", "", {"cpu": "191"})), [raw_pod("p", "n", {"cpu": "451m"})], {},
     "1 node has less cpu free than the 191 asked for"),
    (ask_of(raw_pod("j", "", {"cpu": "191"})), [raw_pod("p", "n", {"cpu": "450m"})], {}, ""),
    (ask_of(raw_pod("j", "", {"memory": "2000Gi"})), [raw_pod("p", "n", {"memory": "64Gi"})], {},
     "1 node has less memory free than the 2000Gi asked for"),
    (ask_of(raw_pod("j", "", {"ephemeral-storage": "2Ti"})), [], {},
     "1 node has less ephemeral-storage than the 2048Gi asked for"),
    (ask_of(raw_pod("j", "", {"rdma/hca": "1"})), [], {}, "1 node has no rdma/hca"),
    (ask_of(raw_pod("j", "", {"rdma/hca": "0"})), [], {}, ""),
    (ask(), [raw_pod("p", "n")], {"room": {"pods": "1"}}, "1 node has no room for another pod"),
    (ask(), [raw_pod("p", "n")], {"room": {"pods": "2"}}, ""),
])  # fmt: skip
def test_what_is_free(wanted: Ask, pods: list[Any], node: dict[str, Any], said: str) -> None:
    assert reason(wanted, *pods, **node) == said


def test_reasons_are_counted() -> None:
    nodes = [node_of(raw_node(f"c{i}", cordoned=True)) for i in range(12)] + [
        node_of(raw_node(f"n{i}")) for i in range(5)
    ]
    pods = [raw_pod(f"p{i}", f"n{i}", {GPU: "4"}) for i in range(3)] + [raw_pod("q", "n3", {GPU: "8"})]
    found = free_sites(topology_of(nodes), nodes, [u for p in pods if (u := usage_of(p))], ask())
    assert [site.name for site in found.sites] == ["n4"]
    assert found.why_not() == "12 nodes are cordoned; 3 have 4 of 8 GPUs free; 1 has 0 of 8 GPUs free"
    assert found.why_not(1) == "12 nodes are cordoned; 4 are refused for 2 other reasons"
    assert found.refused["n3"] == Reason("has", "0 of 8 GPUs free")


def test_one_of_many_reasons() -> None:
    counts = [(Reason("does", "not have the label a=b"), 2), (Reason("is", "cordoned"), 1)]
    assert why_not(counts) == "2 nodes do not have the label a=b; 1 is cordoned"
    assert why_not(counts, 1) == "2 nodes do not have the label a=b; 1 is refused for another reason"


@given(JUNK)
def test_no_object_makes_reading_raise(raw: Any) -> None:
    if isinstance(raw, dict):
        node = node_of(raw)
        topology_of([node, node_of(raw_node("b"))])
        usage = usage_of(raw)
        free_sites(topology_of([node]), [node], [usage] if usage else [], ask_of(raw))
