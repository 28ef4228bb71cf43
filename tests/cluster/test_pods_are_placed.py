"""Placement on the control plane: racks, jobs that want the same nodes, nodes that refuse, ranks that follow."""

from __future__ import annotations

from typing import Any

from clusterkit.component import Component
from clusterkit.jobs import Jobs, manifest, until
from ring_operator.names import GATE


def hungry(name: str, pods: int, **spec: Any) -> dict[str, Any]:
    """A job of which no two pods fit on one node of 64 cores."""
    job = manifest(name, pods, **spec)
    job["spec"]["training"] = {"steps": 1000, "batch": 12}
    job["spec"]["workers"]["resources"] = {"requests": {"cpu": "40"}}
    return job


def nodes_of(jobs: Jobs, name: str) -> list[str]:
    return [pod["spec"].get("nodeName", "") for pod in jobs.pods(name)]


def placed(jobs: Jobs, name: str) -> dict[str, Any]:
    [condition] = [c for c in jobs.status(name).get("conditions", []) if c["type"] == "Placed"] or [{}]
    return dict(condition)


def test_two_jobs_at_once_get_a_rack_each(jobs: Jobs, operator: Component) -> None:
    for name in ("one", "two"):
        jobs.apply(hungry(name, 4))
    for name in ("one", "two"):
        status = jobs.until_state("Running", name)
        assert {hop["level"]: hop["hops"] for hop in status["placement"]["hops"]}["rack"] == 0
        assert status["placement"]["cost"] == status["placement"]["lowerBound"]
    assert len({*nodes_of(jobs, "one"), *nodes_of(jobs, "two")}) == 8
    assert not any(pod["spec"].get("schedulingGates") for pod in jobs.pods("one"))


def test_of_two_jobs_that_do_not_fit_together_one_runs_and_the_other_holds_nothing(
    jobs: Jobs, operator: Component
) -> None:
    for name in ("one", "two"):
        jobs.apply(hungry(name, 6))
    until(lambda: "Running" in {jobs.status(n).get("state") for n in ("one", "two")}, "one of them runs")
    first, second = sorted(("one", "two"), key=lambda name: jobs.status(name).get("state") != "Running")
    until(lambda: placed(jobs, second).get("reason") == "NoPlacement", lambda: str(jobs.status(second)))
    assert "6 nodes are wanted, 2 are free" in placed(jobs, second)["message"]
    assert nodes_of(jobs, second) == [""] * 6
    assert all(pod["spec"]["schedulingGates"] == [{"name": GATE}] for pod in jobs.pods(second))
    jobs.kubectl("delete", "rtj", first)
    jobs.until_state("Running", second)


def test_ranks_follow_the_racks_wherever_the_scheduler_put_the_pods(jobs: Jobs, operator: Component) -> None:
    jobs.apply(hungry("spread", 6, placement={"mode": "scheduler"}))
    status = jobs.until_state("Running", "spread")
    racks = {"ab"[int(node.split("-")[1]) // 4] for node in status["rings"][0]["nodes"]}
    order = ["ab"[int(node.split("-")[1]) // 4] for node in status["rings"][0]["nodes"]]
    assert sum(a != b for a, b in zip(order, order[1:] + order[:1], strict=True)) == (2 if len(racks) == 2 else 0)


def test_a_node_that_refuses_its_pod_for_reasons_of_its_own_is_left_for_others(jobs: Jobs, operator: Component) -> None:
    """What keeps the pod off is a foreign pod that will not have pods of jobs beside it; no resource tells of it."""
    term = {
        "labelSelector": {"matchExpressions": [{"key": "ringtraining.dev/job", "operator": "Exists"}]},
        "topologyKey": "kubernetes.io/hostname",
    }
    spec = {
        "nodeName": "worker-0",
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        "containers": [{"name": "it", "image": "none"}],
    }
    jobs.kubectl.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loner"}, "spec": spec})
    until(lambda: jobs.kubectl.json("get", "pod", "loner")["status"]["phase"] == "Running", "the foreign pod runs")
    jobs.apply(manifest("tiny", 4, placement={"excludeNodes": ["worker-4", "worker-5", "worker-6"]}))
    until(lambda: jobs.status().get("placement", {}).get("retries", 0) >= 1, lambda: str(jobs.status()), seconds=90)
    status = jobs.until_state("Running")
    assert sorted(nodes_of(jobs, "tiny")) == ["worker-1", "worker-2", "worker-3", "worker-7"]
    assert [entry["node"] for entry in status["excludedNodes"]] == ["worker-0"]
    assert "PlacementReleased" in jobs.events()
