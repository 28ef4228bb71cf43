"""Jobs of tests on a cluster: a small manifest, and `Jobs` to apply it, look at it and wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from clusterkit.fake_agents import FakeAgents
from clusterkit.kubectl import Kubectl

PATIENCE_SECONDS = 60.0
T = TypeVar("T")


def until(look: Callable[[], T | None], what: str | Callable[[], str], seconds: float = PATIENCE_SECONDS) -> T:
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.1)
    return answer


def manifest(name: str = "tiny", pods: int = 4, **spec: Any) -> dict[str, Any]:
    storage = {"name": "storage", "mountPath": "/checkpoints", "persistentVolumeClaim": {"claimName": "shared"}}
    return {
        "apiVersion": "ringtraining.dev/v1alpha1",
        "kind": "RingTrainingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"preset": "tiny-1m"},
            "context": {"length": 8192},
            "workers": {"nodes": pods, "gpusPerNode": 0, "processesPerNode": 1, "volumes": [storage]},
            "data": {"source": {"builtin": "python-stdlib"}},
            "training": {"steps": 1000},
            **spec,
        },
    }


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "shared"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "shared"},
}
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "spec": {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"}},
}


class Jobs:
    """Jobs of one namespace."""

    def __init__(self, kubectl: Kubectl, agents: FakeAgents, namespace: str) -> None:
        self.kubectl, self.agents, self.namespace = kubectl, agents, namespace

    def apply(self, job: dict[str, Any]) -> None:
        self.kubectl.apply(job)

    def get(self, name: str = "tiny") -> dict[str, Any]:
        return self.kubectl.json("get", "rtj", name)

    def status(self, name: str = "tiny") -> dict[str, Any]:
        status = self.get(name).get("status", {})
        assert isinstance(status, dict)
        return status

    def pods(self, name: str = "tiny") -> list[dict[str, Any]]:
        items = self.kubectl.json("get", "pods", "-l", f"ringtraining.dev/job={name}")["items"]
        return sorted(items, key=lambda pod: int(pod["metadata"]["labels"]["ringtraining.dev/pod-index"]))

    def until_state(self, state: str, name: str = "tiny", epoch: int = 1) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("state") == state and status.get("epoch", 0) >= epoch else None

        return until(reached, lambda: f"{name} {state} in epoch {epoch}; it is {self.status(name)}")

    def events(self, name: str = "tiny") -> list[str]:
        items = self.kubectl.json("get", "events", "--field-selector", f"involvedObject.name={name}")["items"]
        return [item["reason"] for item in items]
