"""`kubectl apply` of the quickstart as two pods of two ranks on two real nodes, the operator being a pod as well.

It trains on real text and succeeds; and whatever is broken on the way, it ends with the loss of the undisturbed run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit.installed import NAMESPACE, install_all, leader
from clusterkit.jobs import until
from clusterkit.kubectl import Kubectl, KubectlError
from clusterkit.real_cluster import RealCluster
from clusterkit.real_nodes import RealNodes

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "quickstart.yaml"
STEPS, EVERY = 60, 15
PATIENCE_SECONDS = 900.0
KILL_A_RANK = """
import os, signal
numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
commands = {number: open(f"/proc/{number}/cmdline", "rb").read() for number in numbers}
os.kill(max(number for number in numbers if b"ring_worker.train" in commands[number]), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def operator(real_cluster: RealCluster) -> None:
    install_all(real_cluster.kubectl, real_cluster.operator_image, real_cluster.worker_image)


def quickstart(claim: str, **training: Any) -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load(SAMPLE.read_text())
    spec = job["spec"]
    spec["workers"] |= {"nodes": 2, "processesPerNode": 2, "terminationGracePeriodSeconds": 60}
    spec["workers"]["volumes"] = [
        {"name": "storage", "mountPath": "/checkpoints", "persistentVolumeClaim": {"claimName": claim}}
    ]
    spec["training"] |= {"steps": STEPS, **training}
    spec["checkpoint"]["everySteps"] = EVERY
    spec["evaluation"] = {"everySteps": 0, "sampleTokens": 0}
    return job


class Run:
    """One job in one namespace."""

    def __init__(self, kubectl: Kubectl, cluster: RealCluster, namespace: str) -> None:
        self.kubectl, self.cluster, self.namespace = kubectl, cluster, namespace

    def start(self) -> None:
        self.kubectl.create(*self.cluster.shared_volume(self.namespace, "storage"))
        self.kubectl.apply(quickstart("storage"))

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.kubectl.json("get", "rtj", "quickstart").get("status", {})
        except KubectlError:  # the API server is being started again
            return {}
        return found

    def pods(self) -> list[dict[str, Any]]:
        items = self.kubectl.json("get", "pods", "-l", "ringtraining.dev/job=quickstart")["items"]
        return sorted(items, key=lambda pod: int(pod["metadata"]["labels"]["ringtraining.dev/pod-index"]))

    def step(self) -> int:
        return int((self.status().get("progress") or {}).get("step", -1))

    def until_step(self, step: int) -> None:
        until(lambda: self.step() >= step, lambda: f"step {step}; {self.story()}", PATIENCE_SECONDS)

    def until_state(self, state: str, epoch: int = 1) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status()
            assert state == "Failed" or status.get("state") != "Failed", self.story()
            return status if status.get("state") == state and status.get("epoch", 0) >= epoch else None

        return until(reached, lambda: f"{state} in epoch {epoch}; {self.story()}", PATIENCE_SECONDS)

    def story(self) -> str:
        """What a person would want to read when this goes wrong."""
        pods = self.kubectl("get", "pods", "-o", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        log = self.kubectl("-n", NAMESPACE, "logs", leader(self.cluster.kubectl), "--tail=30")
        return f"{json.dumps(self.status(), indent=1)}\n{pods}\n{events[-3000:]}\n{log}"

    def losses(self) -> dict[int, float]:
        """Of every step, from the file that rank 0 writes beside the checkpoints."""
        text = self._read("/checkpoints/run/metrics.jsonl")
        lines = [json.loads(line) for line in text.splitlines()]
        return {line["step"]: line["loss"] for line in lines}

    def checkpoints(self) -> list[str]:
        return self._read("/checkpoints", "import os, sys; print(*sorted(os.listdir(sys.argv[1])))").split()

    def _read(self, path: str, program: str = "import sys; print(open(sys.argv[1]).read())") -> str:
        """By a pod that mounts the same storage."""
        name = f"reader-{time.monotonic_ns()}"
        pod = _reader(name, self.cluster.worker_image, ["python", "-c", program, path])
        self.kubectl.create(pod)
        until(
            lambda: self.kubectl.json("get", "pod", name)["status"].get("phase") == "Succeeded",
            lambda: self.kubectl("describe", "pod", name),
            180,
        )
        return self.kubectl("logs", name)


def _reader(name: str, image: str, command: list[str]) -> dict[str, Any]:
    from clusterkit.pods import python_pod

    claim = {"persistentVolumeClaim": {"claimName": "storage"}}
    pod = python_pod(name, image, "", volumes=[("storage", "/checkpoints", claim)])
    pod["spec"]["containers"][0]["command"] = command
    return pod


@pytest.fixture
def run(kubectl: Kubectl, real_cluster: RealCluster, namespace: str, operator: None) -> Run:
    return Run(kubectl, real_cluster, namespace)


UNDISTURBED: dict[int, float] = {}


@pytest.mark.timeout(1200)
def test_the_quickstart_trains_on_two_nodes_and_succeeds(run: Run) -> None:
    run.start()
    status = run.until_state("Running")
    assert len(set(status["rings"][0]["nodes"])) == 2
    run.until_step(5)
    progress = run.status()["progress"]
    assert progress["loss"] < 6
    assert progress["tokensPerSecond"] > 0
    assert "quickstart" in run.kubectl("get", "rtj")
    status = run.until_state("Succeeded")
    assert status["progress"]["step"] == STEPS
    assert (status["restarts"].get("total", 0), status["epoch"]) == (0, 1)
    UNDISTURBED.update(run.losses())
    assert sorted(UNDISTURBED) == list(range(1, STEPS + 1))
    assert UNDISTURBED[STEPS] < UNDISTURBED[1]
    assert f"step-{STEPS:08d}" in run.checkpoints()


def same_end(run: Run) -> dict[str, Any]:
    """It succeeds with every loss of the undisturbed run."""
    status = run.until_state("Succeeded")
    assert UNDISTURBED, "the undisturbed run has to come first"
    assert run.losses() == UNDISTURBED
    return status


@pytest.mark.timeout(1200)
def test_a_rank_is_killed(run: Run) -> None:
    run.start()
    run.until_step(EVERY + 3)
    run.kubectl("exec", "quickstart-1", "-c", "agent", "--", "python", "-c", KILL_A_RANK)
    status = same_end(run)
    assert (status["epoch"], status["restarts"]["infrastructure"]) == (2, 1)
    assert "SIGKILL" in status["lastFailure"]
    assert [pod["metadata"]["name"] for pod in run.pods()] == ["quickstart-0", "quickstart-1"]


@pytest.mark.timeout(1200)
def test_a_pod_is_deleted(run: Run) -> None:
    run.start()
    run.until_step(EVERY + 3)
    run.kubectl("delete", "pod", "quickstart-1", "--wait=false")
    status = same_end(run)
    assert status["epoch"] == 2
    assert "quickstart-1-r1" in [pod["metadata"]["name"] for pod in run.pods()]


@pytest.mark.timeout(1500)
def test_a_node_is_lost_and_comes_back(run: Run, own_nodes: RealNodes) -> None:
    run.start()
    run.until_step(EVERY + 3)
    name = run.pods()[1]["spec"]["nodeName"]
    node = next(node for node in own_nodes.nodes if node.name == name)
    node.kill()
    try:
        until(lambda: run.status().get("epoch", 1) >= 2, lambda: f"the loss to be seen; {run.story()}", 240)
        assert "not ready" in run.status()["lastFailure"]
    finally:
        node.start()
    same_end(run)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", ["operator", "api server"])
def test_what_looks_after_the_job_dies(run: Run, victim: str, request: pytest.FixtureRequest) -> None:
    run.start()
    run.until_step(EVERY + 3)
    kill: Callable[[], Any] = lambda: run.kubectl(  # noqa: E731
        "-n", NAMESPACE, "delete", "pod", leader(run.cluster.kubectl), "--grace-period=0", "--force"
    )
    if victim == "api server":
        kill = request.getfixturevalue("own_nodes").plane.apiserver.restart
    kill()
    status = same_end(run)
    assert (status["epoch"], status["restarts"].get("total", 0)) == (1, 0)


@pytest.mark.timeout(1200)
def test_suspended_and_resumed(run: Run) -> None:
    run.start()
    run.until_step(EVERY + 3)
    run.kubectl("patch", "rtj", "quickstart", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    run.until_state("Suspended")
    assert run.pods() == []
    run.kubectl("patch", "rtj", "quickstart", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    status = same_end(run)
    assert (status["epoch"], status["restarts"].get("total", 0)) == (2, 0)
