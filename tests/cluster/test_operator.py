"""The operator on a real control plane, with simulated nodes and agents: what becomes of a job's objects.

The operator has its own service account's rights and no more.
"""

from __future__ import annotations

from pathlib import Path

from clusterkit import nodes
from clusterkit.cluster import Cluster
from clusterkit.component import Component
from clusterkit.jobs import Jobs, manifest, until
from clusterkit.operator_process import running_operator


def test_a_job_runs_its_status_is_true_and_it_succeeds(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest())
    status = jobs.until_state("Running")
    assert (status["epoch"], status["ringsReady"]) == (1, "1/1")
    assert status["plan"]["context"] == 4
    pods = jobs.pods()
    assert status["rings"][0]["nodes"] == [pod["spec"]["nodeName"] for pod in pods]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 4
    until(lambda: jobs.status()["progress"]["step"] > 3, "some steps")
    until(lambda: all(p["metadata"]["annotations"]["ringtraining.dev/epoch"] == "1" for p in jobs.pods()), "stamps")
    jobs.agents.succeed(jobs.namespace, "tiny")
    status = jobs.until_state("Succeeded")
    assert status["progress"]["step"] == 1000
    until(lambda: {"EpochStarted", "Succeeded"} <= set(jobs.events()), "events, which come after the status")
    table = jobs.kubectl("get", "rtj")
    assert "Succeeded" in table
    assert [problem for problem in jobs.agents.problems if problem.startswith(jobs.namespace)] == []


def test_a_broken_rank_starts_the_next_epoch_in_the_same_pods(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest())
    jobs.until_state("Running")
    before = [pod["metadata"]["uid"] for pod in jobs.pods()]
    jobs.agents.break_rank(jobs.namespace, "tiny", 2, 70, "out of ideas")
    status = jobs.until_state("Running", epoch=2)
    assert [pod["metadata"]["uid"] for pod in jobs.pods()] == before
    assert status["restarts"]["application"] == 1
    assert "rank 2 in tiny-2 ended with exit code 70" in status["lastFailure"]


def test_a_deleted_pod_is_replaced(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest())
    jobs.until_state("Running")
    jobs.kubectl("delete", "pod", "tiny-1", "--wait=false")
    status = jobs.until_state("Running", epoch=2)
    assert [pod["metadata"]["name"] for pod in jobs.pods()] == ["tiny-0", "tiny-1-r1", "tiny-2", "tiny-3"]
    assert status["attempts"] == [{"index": 1, "attempt": 1}]


def test_a_lost_node_is_left(jobs: Jobs, operator: Component, cluster: Cluster) -> None:
    jobs.apply(manifest())
    jobs.until_state("Running")
    victim = jobs.pods()[2]
    node = victim["spec"]["nodeName"]
    try:
        nodes.lose(cluster.kubeconfig, node)
        jobs.agents.mute(jobs.namespace, victim["metadata"]["name"])
        jobs.until_state("Running", epoch=2)
        assert node not in {pod["spec"]["nodeName"] for pod in jobs.pods()}
    finally:
        nodes.recover(cluster.kubeconfig, node)


def test_a_hang_is_found_asked_about_and_ended(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest(recovery={"stallTimeoutSeconds": 10}))
    jobs.until_state("Running")
    until(lambda: jobs.status()["progress"]["step"] > 0, "a step")
    jobs.agents.hang(jobs.namespace, "tiny")
    status = jobs.until_state("Running", epoch=2)
    assert "made no progress" in status["lastFailure"]
    stacks = jobs.kubectl.json("get", "configmap", "tiny-stacks")
    assert set(stacks["data"]) >= {"epoch", "tiny-0", "tiny-3"}


def test_suspend_and_resume(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest())
    jobs.until_state("Running")
    jobs.kubectl("patch", "rtj", "tiny", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    jobs.until_state("Suspended")
    assert jobs.pods() == []
    jobs.kubectl("patch", "rtj", "tiny", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    status = jobs.until_state("Running", epoch=2)
    assert status["restarts"]["total"] == 0


def test_a_job_that_cannot_be_planned_says_why_and_stops_no_other(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest("odd", parallelism={"context": 3}))
    jobs.apply(manifest("good", pods=1))
    status = jobs.until_state("Invalid", "odd", epoch=0)
    [planned] = [c for c in status["conditions"] if c["type"] == "Planned"]
    assert planned["status"] == "False"
    assert "spec.parallelism" in planned["message"]
    jobs.until_state("Running", "good")


def test_a_deleted_job_leaves_nothing(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest())
    jobs.until_state("Running")
    jobs.kubectl("delete", "rtj", "tiny")
    kinds = "pods,configmaps,services,networkpolicies"
    until(
        lambda: not jobs.kubectl.json("get", kinds, "-l", "ringtraining.dev/job=tiny")["items"], "everything to be gone"
    )


def test_a_job_of_another_controller_is_left_alone(jobs: Jobs, operator: Component) -> None:
    jobs.apply(manifest("theirs", managedBy="example.com/other"))
    jobs.apply(manifest("ours", pods=1))
    jobs.until_state("Running", "ours")
    assert jobs.status("theirs") == {}
    assert jobs.pods("theirs") == []


def test_a_foreign_pod_under_the_name_of_one_of_ours_is_told(jobs: Jobs, operator: Component) -> None:
    container = {"name": "main", "image": "localhost/nothing"}
    jobs.kubectl.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tiny-0"}, "spec": {"containers": [container]}}
    )
    jobs.apply(manifest(pods=1))

    def told() -> bool:
        degraded = [c for c in jobs.status().get("conditions", ()) if c["type"] == "Degraded"]
        return bool(degraded) and "tiny-0 exists and is not of this job" in degraded[0]["message"]

    until(told, "a Degraded condition")
    jobs.kubectl("delete", "pod", "tiny-0", "--grace-period=0", "--force")
    jobs.until_state("Running")


def test_two_replicas_have_one_leader_and_the_second_takes_over(
    jobs: Jobs, installed: Path, ready_nodes: list[str], tmp_path: Path
) -> None:
    with (
        running_operator(installed, tmp_path, "first") as first,
        running_operator(installed, tmp_path, "second") as second,
    ):
        jobs.apply(manifest())
        jobs.until_state("Running")
        first.kill()
        jobs.agents.break_rank(jobs.namespace, "tiny", 0, 70)
        jobs.until_state("Running", epoch=2)
        assert second.alive
