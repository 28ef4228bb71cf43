"""Agents of pods that kwok plays: they answer at the pods' addresses, follow the rank table, and end their pods."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from clusterkit import nodes
from clusterkit.cluster import Cluster
from clusterkit.component import Component
from clusterkit.control_plane import ControlPlane
from clusterkit.fake_agents import FakeAgents
from clusterkit.fake_job import Course
from clusterkit.kubectl import Kubectl
from processes import wait_until
from ring_operator import names
from ring_worker.contract import AgentStatus, Degrees, Master, Member, RankTable

JOB = "ring"
PODS = [names.pod(JOB, index) for index in range(2)]
PATIENCE = 30.0


@pytest.fixture(scope="module")
def agents(cluster: Cluster, kwok: Component) -> Iterator[FakeAgents]:
    """One server for all tests of this file, and a node with room for all their pods."""
    nodes.create(cluster.kubeconfig, [nodes.node("agents")])
    with FakeAgents(cluster.kubeconfig) as running:
        yield running
    nodes.delete(cluster.kubeconfig, ["agents"])


@pytest.fixture
def uid(kubectl: Kubectl, agents: FakeAgents) -> str:
    """Of a job of two pods that run."""
    agents.course = Course(steps=None, step_seconds=0.05, checkpoint_every=5)
    job_uid = _owner(kubectl)
    kubectl.create(*(_pod(name, job_uid) for name in PODS))
    kubectl("wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s")
    return job_uid


def test_a_job_from_waiting_to_succeeded(agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str):
    wait_until(lambda: _status(kubectl, PODS[0]) is not None, PATIENCE, "the agent answers")
    assert {(status.pod, status.state, status.epoch) for status in _all(kubectl)} == {(p, "waiting", 0) for p in PODS}
    assert {status.job_uid for status in _all(kubectl)} == {uid}
    kubectl.apply(_ranks(1, uid))
    wait_until(lambda: all(status.step > 5 for status in _all(kubectl)), PATIENCE, "both train")
    assert {(status.state, status.epoch) for status in _all(kubectl)} == {("running", 1)}
    assert all(status.checkpoint_step >= 5 for status in _all(kubectl))
    agents.succeed(namespace, JOB)
    kubectl("wait", "pods", "--all", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    ended = kubectl.json("get", "pod", PODS[1])["status"]["containerStatuses"][0]
    assert (ended["name"], ended["state"]["terminated"]["exitCode"]) == (names.AGENT_CONTAINER, 0)
    assert _status(kubectl, PODS[1]) is None


def test_a_job_ends_after_its_steps(agents: FakeAgents, kubectl: Kubectl, namespace: str):
    agents.course = Course(steps=3, step_seconds=0.05)
    job_uid = _owner(kubectl)
    kubectl.create(*(_pod(name, job_uid) for name in PODS))
    kubectl.apply(_ranks(1, job_uid))
    kubectl("wait", "pods", "--all", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


def test_a_broken_rank_and_the_epoch_after_it(agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str):
    kubectl.apply(_ranks(1, uid))
    wait_until(lambda: all(status.checkpoint_step >= 5 for status in _all(kubectl)), PATIENCE, "a checkpoint")
    agents.break_rank(namespace, JOB, rank=1, exit_code=-9, error="killed")
    echo, cause = _all(kubectl)
    assert (cause.state, cause.failed_rank, cause.exit_code, cause.error) == ("broken", 1, -9, "killed")
    assert (echo.state, echo.failed_rank, echo.exit_code) == ("broken", 0, 75)
    kubectl.apply(_ranks(2, uid))
    wait_until(lambda: all(status.step > 5 for status in _all(kubectl)), PATIENCE, "they train on")
    assert {(status.state, status.epoch) for status in _all(kubectl)} == {("running", 2)}


def test_a_hang_and_a_mute_agent(agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str):
    kubectl.apply(_ranks(1, uid))
    wait_until(lambda: all(status.step > 0 for status in _all(kubectl)), PATIENCE, "both train")
    agents.hang(namespace, JOB)
    before = _all(kubectl)
    agents.mute(namespace, PODS[0])
    with pytest.raises(TimeoutError):
        _ask(_address(kubectl, PODS[0]), seconds=0.5)
    agents.mute(namespace, PODS[0], on=False)
    after = _all(kubectl)
    assert [status.step for status in after] == [status.step for status in before]
    ages = [(old.progress_age_seconds, new.progress_age_seconds) for old, new in zip(before, after, strict=True)]
    assert all(new > old + 0.4 for old, new in ages)


def test_a_pod_crashes_and_its_successor_joins_the_next_epoch(
    agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str
):
    kubectl.apply(_ranks(1, uid))
    wait_until(lambda: all(status.step > 5 for status in _all(kubectl)), PATIENCE, "both train")
    agents.crash(namespace, PODS[0], exit_code=137, reason="OOMKilled")
    kubectl("wait", f"pod/{PODS[0]}", "--for=jsonpath={.status.phase}=Failed", "--timeout=30s")
    left = _status(kubectl, PODS[1])
    assert left is not None
    assert left.state == "broken"
    kubectl("delete", "pod", PODS[0], "--timeout=30s")
    kubectl.create(_pod(PODS[0], uid))
    kubectl("wait", f"pod/{PODS[0]}", "--for=condition=Ready", "--timeout=60s")
    kubectl.apply(_ranks(2, uid))
    wait_until(lambda: {(s.epoch, s.step > 5) for s in _all(kubectl)} == {(2, True)}, PATIENCE, "both train on")


def test_an_evicted_pod_says_so_in_its_status(agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str):
    agents.evict(namespace, PODS[0], message="The node was low on resource: memory.")
    status = kubectl.json("get", "pod", PODS[0])["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")


def test_a_table_that_an_agent_would_refuse_is_a_problem(agents: FakeAgents, kubectl: Kubectl, uid: str):
    wrong = _ranks(1, uid)
    wrong["data"] = {names.RANKS_KEY: "{}"}
    kubectl.apply(wrong)
    wait_until(lambda: len(agents.problems) == 1, PATIENCE, "the problem is seen")
    assert "RankTable" in agents.problems.pop()
    assert {status.state for status in _all(kubectl)} == {"waiting"}


def test_agents_outlive_the_api_server(
    plane: ControlPlane, agents: FakeAgents, kubectl: Kubectl, namespace: str, uid: str
):
    plane.apiserver.restart()
    kubectl.apply(_ranks(1, uid))
    wait_until(lambda: all(status.step > 0 for status in _all(kubectl)), PATIENCE, "both train")


def test_a_pods_address_is_refused_when_it_is_gone(kubectl: Kubectl, uid: str):
    address = _address(kubectl, PODS[0])
    assert _ask(address).pod == PODS[0]
    kubectl("delete", "pod", PODS[0], "--timeout=30s")
    wait_until(lambda: _refused(address), PATIENCE, "nobody listens there")
    assert _status(kubectl, PODS[1]) is not None


def _refused(address: str) -> bool:
    try:
        _ask(address)
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def _all(kubectl: Kubectl) -> list[AgentStatus]:
    return [status for status in (_status(kubectl, name) for name in PODS) if status is not None]


def _status(kubectl: Kubectl, pod: str) -> AgentStatus | None:
    """As the operator asks for it. None: nobody answers."""
    try:
        return _ask(_address(kubectl, pod))
    except (OSError, urllib.error.URLError):
        return None


def _ask(address: str, seconds: float = 5.0) -> AgentStatus:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:{names.STATUS_PORT}/status", timeout=seconds) as answer:
        return AgentStatus.from_json(answer.read().decode())


def _address(kubectl: Kubectl, pod: str) -> str:
    return kubectl("get", "pod", pod, "--output=jsonpath={.status.podIP}")


def _owner(kubectl: Kubectl) -> str:
    """The uid of what stands for the job; it has to be there, or the garbage collector takes its pods."""
    kubectl("create", "configmap", JOB)
    return kubectl("get", "configmap", JOB, "--output=jsonpath={.metadata.uid}")


def _pod(name: str, uid: str) -> dict[str, object]:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": JOB, "uid": uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {names.LABEL_JOB: JOB}, "ownerReferences": [owner]},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": nodes.SIMULATED,
            "containers": [{"name": names.AGENT_CONTAINER, "image": "none"}],
        },
    }


def _ranks(epoch: int, uid: str) -> dict[str, object]:
    members = tuple(Member(pod, "agents", f"127.16.0.{rank}", rank, 1, 0, rank) for rank, pod in enumerate(PODS))
    table = RankTable(epoch, uid, 2, Degrees(context=2), Master("127.16.0.0", 29500), f"token-{epoch}", members)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.ranks_map(JOB), "labels": {names.LABEL_JOB: JOB}},
        "data": {names.RANKS_KEY: table.to_json()},
    }
