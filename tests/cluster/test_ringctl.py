"""`ringctl` on a real control plane, with the operator at work: what a person does to a job, and what comes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit import kubeconfigs
from clusterkit.cluster import Cluster
from clusterkit.component import Component
from clusterkit.control_plane import ControlPlane
from clusterkit.jobs import Jobs, manifest, until
from clusterkit.kubectl import Kubectl

SECONDS = 120


class Ringctl:
    """`ringctl` as a process, by a kubeconfig whose context is of the test's namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        for context in document["contexts"]:
            context["context"]["namespace"] = namespace
        self.kubeconfig = kubeconfigs.write(folder / "ringctl.kubeconfig", document)
        self.folder, self.namespace = folder, namespace

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ring_operator.cli", *words]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "127.0.0.1"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder
        )

    def __call__(self, *words: str, code: int = 0) -> str:
        """Standard output, or standard error where another exit code than 0 is expected."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert process.returncode == code, f"{out}\n{err}"
        assert "Traceback" not in err
        return err if code else out

    def file(self, **changes: Any) -> str:
        path = self.folder / f"{changes.get('name', 'tiny')}.yaml"
        path.write_text(yaml.safe_dump(manifest(**changes)))
        return str(path)


@pytest.fixture
def ringctl(cluster: Cluster, installed: Path, namespace: str, tmp_path: Path) -> Ringctl:
    return Ringctl(cluster.kubeconfig, namespace, tmp_path)


def test_a_job_is_submitted_followed_and_succeeds(ringctl: Ringctl, jobs: Jobs, operator: Component) -> None:
    following = ringctl.start("submit", ringctl.file(), "--wait", "-o", "json")
    until(lambda: jobs.kubectl("get", "rtj", "--ignore-not-found"), "the job is there")
    jobs.until_state("Running")
    until(lambda: jobs.status()["progress"]["step"] > 3, "some steps")
    jobs.agents.break_rank(jobs.namespace, "tiny", 2, 70, "out of ideas")
    jobs.until_state("Running", epoch=2)
    jobs.agents.succeed(jobs.namespace, "tiny")
    out, err = following.communicate(timeout=SECONDS)
    assert following.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["submitted", "planned"]
    assert [e["epoch"] for e in events if e["event"] == "started"] == [1, 2]
    (restart,) = [e for e in events if e["event"] == "restart"]
    assert "rank 2 in tiny-2 ended with exit code 70" in restart["message"]
    steps = [e for e in events if e["event"] == "step"]
    assert steps[0]["total_steps"] == 1000
    assert steps[0]["tokens_per_second"] > 0
    assert events[-1]["event"] == "finished"
    assert events[-1]["exit_code"] == 0


def test_a_job_that_fails_is_told_by_the_exit_code_and_can_be_started_anew(
    ringctl: Ringctl, jobs: Jobs, operator: Component
) -> None:
    ringctl("submit", ringctl.file())
    jobs.until_state("Running")
    jobs.agents.break_rank(jobs.namespace, "tiny", 1, 64, "no such text")
    following = ringctl.start("status", "tiny", "--wait")
    out, _ = following.communicate(timeout=SECONDS)
    assert following.returncode == 3
    assert "Failed: rank 1 in tiny-1 ended with exit code 64 (invalid config)" in out
    assert "it is so" in ringctl("restart", "tiny", "--wait")
    assert jobs.status()["state"] == "Running"
    assert "ringctl status" in ringctl("submit", ringctl.file())


def test_suspend_resume_restart_and_delete_until_it_is_so(ringctl: Ringctl, jobs: Jobs, operator: Component) -> None:
    ringctl("submit", ringctl.file())
    jobs.until_state("Running")
    assert ringctl("suspend", "tiny", "--wait").startswith("tiny suspended\n")
    assert jobs.pods() == []
    assert "it was suspended already" in ringctl("suspend", "tiny")
    assert "It is suspended: ringctl resume tiny" in ringctl("submit", ringctl.file())
    assert ringctl("resume", "tiny", "--wait").startswith("tiny resumed\n")
    assert len(jobs.pods()) == 4
    before = jobs.status()["epoch"]
    ringctl("restart", "tiny", "--wait")
    assert jobs.status()["epoch"] > before
    assert "RestartAsked" in jobs.events()
    found = json.loads(ringctl("delete", "tiny", "--wait", "-o", "json"))
    assert found["reached"] is True
    assert jobs.pods() == []
    assert "there is no job tiny in namespace" in ringctl("status", "tiny", code=4)


def test_what_is_shown_of_jobs(ringctl: Ringctl, jobs: Jobs, operator: Component) -> None:
    ringctl("submit", ringctl.file())
    jobs.until_state("Running")
    until(lambda: jobs.status()["progress"]["step"] > 3, "some steps")
    until(lambda: "EpochStarted" in jobs.events(), "the event")
    nodes = [pod["spec"]["nodeName"] for pod in jobs.pods()]
    assert ringctl("status").splitlines()[1].split()[:3] == ["tiny", "Running", "1/1"]
    shown = ringctl("status", "tiny")
    for said in ("data 1 x context 4 = 4 ranks on 4 nodes x 1", " > ".join(nodes), "EpochStarted", "of 1,000"):
        assert said in shown
    top = ringctl("top", "tiny")
    rows = [line.split() for line in top.splitlines()]
    assert ["tiny-2", "Running", nodes[2], "2", "0", "2", "0"] in rows
    assert "log of tiny-0: HTTP status 50" in ringctl("logs", "tiny", "--pod", "0", code=5)  # no kubelet is there
    found = json.loads(ringctl("top", "tiny", "-o", "json"))
    assert [pod["ranks"] for pod in found["pods"]] == [[0], [1], [2], [3]]
    assert {"namespace": jobs.namespace, "name": "tiny"}.items() <= json.loads(ringctl("status", "-A", "-o", "json"))[
        "jobs"
    ][-1].items()


def test_submit_changes_what_may_change_and_refuses_the_rest(ringctl: Ringctl, kubectl: Kubectl) -> None:
    """Without an operator: the API server alone keeps the rules."""
    path = ringctl.file()
    assert "created in namespace" in ringctl("submit", path)
    assert "unchanged" in ringctl("submit", path)
    assert "changed" in ringctl("submit", path, "--set", "recovery.stallTimeoutSeconds=700")
    said = ringctl("submit", path, "--set", "training.steps=2000", code=1)
    assert "spec.training: may not be changed while the job runs" in said
    assert "ringctl suspend tiny --wait" in said
    assert json.loads(kubectl("get", "rtj", "tiny", "-o", "json"))["spec"]["training"]["steps"] == 1000
    ringctl("suspend", "tiny")
    assert "changed" in ringctl("submit", path, "--set", "training.steps=2000")
    assert json.loads(kubectl("get", "rtj", "tiny", "-o", "json"))["spec"]["suspend"] is True


def test_a_field_that_kubectl_has_set_is_a_conflict_until_it_is_taken_over(ringctl: Ringctl, kubectl: Kubectl) -> None:
    path = ringctl.file(recovery={"stallTimeoutSeconds": 600})
    ringctl("submit", path)
    patch = {"spec": {"recovery": {"stallTimeoutSeconds": 900}}}
    kubectl("patch", "rtj", "tiny", "--type=merge", f"--patch={json.dumps(patch)}")
    said = ringctl("submit", path, code=1)
    assert "spec.recovery.stallTimeoutSeconds: conflict with" in said
    assert "--force-conflicts" in said
    assert "changed" in ringctl("submit", path, "--force-conflicts")


def test_status_that_somebody_writes_is_followed_to_the_end(
    ringctl: Ringctl, kubectl: Kubectl, plane: ControlPlane
) -> None:
    """No operator, but its words; and the API server is restarted in the midst of it."""
    ringctl("submit", ringctl.file())

    def say(**status: Any) -> None:
        kubectl(
            "patch", "rtj", "tiny", "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}"
        )

    say(observedGeneration=1, state="Running", epoch=1, progress={"step": 5, "totalSteps": 1000, "loss": 2.5})
    following = ringctl.start("status", "tiny", "--wait")
    assert following.stdout is not None
    while "step 5/1000  loss 2.500" not in following.stdout.readline():
        assert following.poll() is None
    plane.apiserver.restart()
    condition = {"type": "Failed", "status": "True", "reason": "BudgetSpent", "message": "it was too much"}
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    until(
        lambda: _tried(lambda: say(state="Failed", completionTime="2026-01-01T00:00:00Z", conditions=[condition])),
        "written",
    )
    out, err = following.communicate(timeout=SECONDS)
    assert following.returncode == 3, err
    assert "Failed: it was too much" in out


def _tried(act: Callable[[], None]) -> bool:
    try:
        act()
    except Exception:
        return False
    return True


def test_ctrl_c_leaves_the_job_running(ringctl: Ringctl, jobs: Jobs, operator: Component) -> None:
    following = ringctl.start("submit", ringctl.file(), "--wait")
    assert following.stdout is not None
    while "step " not in following.stdout.readline():
        assert following.poll() is None
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=SECONDS)
    assert following.returncode == 130
    assert "The job goes on" in err
    assert jobs.status()["state"] == "Running"


def test_who_may_not_is_told_what_and_by_whom_it_can_be_mended(
    ringctl: Ringctl, cluster: Cluster, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    stranger = Ringctl(cluster.as_service_account(namespace, "default"), namespace, tmp_path)
    said = stranger("status", code=5)
    assert f'"system:serviceaccount:{namespace}:default" cannot list resource' in said
    assert "Ask an administrator" in said
    forged = yaml.safe_load(ringctl.kubeconfig.read_text())
    forged["users"][0]["user"] = {"token": "forged"}
    kubeconfigs.write(stranger.kubeconfig, forged)
    assert "does not accept the credentials" in stranger("status", code=5)


def test_a_namespace_that_is_not_there_is_told_with_the_way_to_it(ringctl: Ringctl) -> None:
    said = ringctl("submit", ringctl.file(), "-n", "nowhere-at-all", code=4)
    assert 'namespaces "nowhere-at-all" not found' in said
    assert "kubectl create namespace nowhere-at-all" in said
    assert "There are no jobs in namespace nowhere-at-all" in ringctl("status", "-n", "nowhere-at-all")


def test_it_is_a_plugin_of_kubectl_too(ringctl: Ringctl, kubectl: Kubectl, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-ring"
    plugin.write_text(f"#!{sys.executable}\nfrom ring_operator.cli import main\nmain()\n")
    plugin.chmod(0o755)
    environment = {**os.environ, "KUBECONFIG": str(ringctl.kubeconfig), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(
        [kubectl.program, "ring", "status"], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert said.stdout == f"There are no jobs in namespace {kubectl.namespace}.\n", said.stderr
