"""What a kubelet writes when a pod's containers end. Pure: from a Pod to a strategic merge patch of its status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Manifest = dict[str, Any]


def ended(pod: Manifest, exit_code: int, reason: str, now: datetime) -> Manifest:
    """All containers of `pod` have ended with `exit_code`. `reason`: `Completed`, `Error`, `OOMKilled`..."""
    phase = "Failed" if exit_code else "Succeeded"
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "False", "reason": f"Pod{'Failed' if exit_code else 'Completed'}"}
        for kind in ("Ready", "ContainersReady")
    ]
    containers = [_terminated(container, exit_code, reason, time) for container in pod["spec"]["containers"]]
    return {"status": {"phase": phase, "conditions": conditions, "containerStatuses": containers}}


def evicted(reason: str, message: str) -> Manifest:
    """The kubelet gave the pod up: no container status says why, only the pod's own."""
    return {"status": {"phase": "Failed", "reason": reason, "message": message}}


def _terminated(container: Manifest, exit_code: int, reason: str, time: str) -> Manifest:
    end = {"exitCode": exit_code, "reason": reason, "startedAt": time, "finishedAt": time}
    return {
        "name": container["name"],
        "ready": False,
        "started": False,
        "state": {"running": None, "waiting": None, "terminated": end},
    }
