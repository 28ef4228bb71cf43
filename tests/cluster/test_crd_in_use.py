"""The CRD at work on a real API server: what of a job may change, what is filled in, what `kubectl` prints."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from clusterkit.dry_run import DryRun
from clusterkit.kubectl import Kubectl, KubectlError
from job_manifests import raw
from ring_operator.crd.changes import FREE, fixed_fields
from ring_operator.spec import job_of

CHANGES: dict[str, Any] = {
    "model": {"attention": {"sinks": True}},
    "context": {"length": 16384},
    "parallelism": {"data": 1},
    "workers": {"sharedMemory": "1Gi"},
    "placement.mode": {"mode": "scheduler"},
    "placement.levels": {"levels": ["example.org/rack"]},
    "placement.within": {"within": {"level": "rack"}},
    "placement.weights": {"weights": {"rack": 3}},
    "gang": {"queue": "team-a"},
    "data": {"seed": 1},
    "training": {"steps": 11},
    "checkpoint": {"keep": 4},
    "evaluation": {"sequences": 5},
    "recovery": {"stallTimeoutSeconds": 100},
    "placement.excludeNodes": {"excludeNodes": ["n1"]},
    "suspend": True,
    "activeDeadlineSeconds": 5,
    "ttlSecondsAfterFinished": 5,
}


def made(name: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A job that no operator looks after, whichever runs on the cluster."""
    return raw({"metadata.name": name, "managedBy": "example.org/nobody", **(changes or {})})


@pytest.fixture(scope="module")
def running(crd: Kubectl, dry_run_namespace: str) -> str:
    """Name of a job that is not suspended."""
    crd.within(dry_run_namespace).create(made("running"))
    return "running"


@pytest.fixture(scope="module")
def suspended(crd: Kubectl, dry_run_namespace: str) -> str:
    crd.within(dry_run_namespace).create(made("suspended", {"suspend": True}))
    return "suspended"


def _change(field: str) -> dict[str, Any]:
    return {"spec": {field.partition(".")[0]: CHANGES[field]}}


@pytest.mark.parametrize("field", fixed_fields())
def test_a_job_that_runs_keeps_its_shape(field: str, dry_run: DryRun, running: str, suspended: str):
    answer = dry_run.change(running, _change(field))
    assert f"spec.{field}: Forbidden: may not be changed while the job runs. Suspend the job" in answer
    assert dry_run.change(running, {"spec": {**_change(field)["spec"], "suspend": True}}) == answer
    assert dry_run.change(suspended, _change(field)) == ""
    assert dry_run.change(suspended, {"spec": {**_change(field)["spec"], "suspend": False}}) == ""


@pytest.mark.parametrize("field", FREE)
def test_some_things_may_change_at_any_time(field: str, dry_run: DryRun, running: str):
    assert dry_run.change(running, _change(field)) == ""


def test_a_job_never_changes_its_controller(dry_run: DryRun, running: str, suspended: str):
    for name in (running, suspended):
        answer = dry_run.change(name, {"spec": {"managedBy": "example.org/other"}})
        assert "spec.managedBy: Forbidden: may never be changed" in answer


STATUS = {
    "state": "Running",
    "ringsReady": "2/2",
    "plan": {"data": 2, "pipeline": 1, "context": 64, "tensor": 1, "ulysses": 1, "worldSize": 128, "nodes": 16}
    | {"ranksPerNode": 8},
    "progress": {"step": 41, "tokensPerSecond": 1234.5, "efficiency": 0.93, "loss": 2.25},
    "restarts": {"total": 3},
    "epoch": 4,
    "conditions": [
        {"type": "Planned", "status": "True", "reason": "Planned", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Running", "status": "True", "reason": "Training", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ],
}


def test_kubectl_get_reads_well(crd: Kubectl, dry_run_namespace: str):
    kubectl = crd.within(dry_run_namespace)
    kubectl.create(made("shown"))
    patch = yaml.safe_dump({"status": STATUS})
    kubectl("patch", "rtj", "shown", "--subresource=status", "--type=merge", f"--patch={patch}")
    header, row = kubectl("get", "rtj", "shown", "--output=wide").splitlines()
    assert header.split() == (
        ["NAME", "STATE", "RINGS", "CP", "STEP", "TOKENS/S", "EFFICIENCY", "RESTARTS", "AGE", "LOSS", "EPOCH", "REASON"]
    )
    name, state, rings, cp, step, rate, efficiency, restarts, _, loss, epoch, reason = row.split()
    assert (name, state, rings, cp, step, rate) == ("shown", "Running", "2/2", "64", "41", "1234.5")
    assert (efficiency, restarts, loss, epoch, reason) == ("0.93", "3", "2.25", "4", "Training")
    assert len(kubectl("get", "rtj", "shown").splitlines()[0].split()) == 9
    assert "ringtrainingjob" in kubectl("get", "ring", "--output=name")
    assert "Tokens of one sequence" in kubectl("explain", "rtj.spec.context.length")


def test_a_status_out_of_bounds_is_refused(crd: Kubectl, dry_run_namespace: str, running: str):
    kubectl = crd.within(dry_run_namespace)
    for bad in ({"epoch": -1}, {"state": "x" * 65}, {"conditions": [{"type": "A"}]}):
        with pytest.raises(KubectlError, match="status"):
            kubectl(
                "patch",
                "rtj",
                running,
                "--subresource=status",
                "--type=merge",
                f"--patch={yaml.safe_dump({'status': bad})}",
            )


def test_two_managers_share_the_variables_of_a_job(crd: Kubectl, dry_run_namespace: str):
    """A list that is told apart by names: each manager keeps its own entries."""
    kubectl = crd.within(dry_run_namespace)
    for manager, variable in (("one", "A"), ("two", "B")):
        manifest = made("shared", {"suspend": True, "workers.env": [{"name": variable, "value": "x"}]})
        kubectl("apply", "--server-side", f"--field-manager={manager}", "--filename=-", stdin=yaml.safe_dump(manifest))
    env = kubectl.json("get", "rtj", "shared")["spec"]["workers"]["env"]
    assert [variable["name"] for variable in env] == ["A", "B"]


def test_the_server_fills_in_what_the_models_would(crd: Kubectl, dry_run_namespace: str, running: str):
    stored = crd.within(dry_run_namespace).json("get", "rtj", running)
    assert stored["spec"]["recovery"]["budget"] == {"application": 3, "infrastructure": 20, "noProgress": 3}
    assert job_of(stored).spec == job_of(made("running")).spec
