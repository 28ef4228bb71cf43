"""Jobs, pods and statuses as an API server gives them, for tests of what a person sees of them."""

from __future__ import annotations

import json
from typing import Any

from ring_operator import names
from ring_worker.contract import Degrees, Master, Member, RankTable

Raw = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"
PLAN = {
    "data": 1,
    "pipeline": 1,
    "context": 4,
    "tensor": 1,
    "ulysses": 1,
    "worldSize": 4,
    "nodes": 2,
    "ranksPerNode": 2,
}
RINGS = [{"index": 0, "nodes": ["node-a", "node-b"], "tokensPerSecond": 5000.0, "efficiency": 0.81}]


def condition(kind: str, status: str, reason: str, message: str = "") -> Raw:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def progress(step: int, **more: Any) -> Raw:
    figures = {"loss": 8.0 / step, "tokensPerSecond": 5000.0, "efficiency": 0.81, "etaSeconds": 10 * (10 - step)}
    return {"step": step, "totalSteps": 10, "tokens": 4096 * step, **figures, **more}


WAITING = {"state": "Pending", "plan": PLAN, "conditions": [condition("Placed", "False", "Waiting", "1 of 2 on nodes")]}
STARTING = {"state": "Starting", "epoch": 1, "conditions": [condition("Placed", "True", "Placed")]}
SUCCEEDED = {
    "state": "Succeeded",
    "progress": progress(10, lastCheckpointStep=10),
    "startTime": NOW,
    "completionTime": "2026-01-01T00:04:05Z",
    "conditions": [condition("Succeeded", "True", "Completed", "all 10 steps are done")],
}
FAILED = {
    "state": "Failed",
    "completionTime": NOW,
    "lastFailure": "rank 1 in tiny-0 ended with exit code 70",
    "conditions": [condition("Failed", "True", "BudgetSpent", "rank 1 in tiny-0 ended with exit code 70; no more")],
}
INVALID = {"state": "Invalid", "conditions": [condition("Planned", "False", "Invalid", "spec.context: too long")]}
SUSPENDED = {"state": "Suspended", "conditions": [condition("Suspended", "True", "Suspended", "no pods")]}


def running(step: int, **more: Any) -> Raw:
    return {"state": "Running", "epoch": 1, "plan": PLAN, "rings": RINGS, "progress": progress(step), **more}


def pod(index: int, attempt: int = 0, phase: str = "Running", uid: str = "uid-tiny", **status: Any) -> Raw:
    owner = {"kind": names.KIND, "name": "tiny", "uid": uid, "controller": True}
    agent = {"name": names.AGENT_CONTAINER, "state": {"running": {"startedAt": NOW}}}
    return {
        "metadata": {
            "name": names.pod("tiny", index, attempt),
            "namespace": "team",
            "uid": f"uid-pod-{index}-{attempt}",
            "labels": names.pod_labels("tiny", index, attempt),
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": f"node-{'ab'[index % 2]}"},
        "status": {"phase": phase, **({"containerStatuses": [agent]} if phase == "Running" else {}), **status},
    }


def ranks_map(*pods: str) -> Raw:
    """Two ranks a pod."""
    members = tuple(Member(pod, "n", "10.0.0.1", 2 * i, 2, ring=0, position=2 * i) for i, pod in enumerate(pods))
    world = 2 * len(pods)
    table = RankTable(1, "uid-tiny", world, Degrees(context=world), Master("10.0.0.1", 29500), "t", members)
    return {"data": {names.RANKS_KEY: table.to_json()}}


def event(reason: str, message: str, count: int = 1) -> Raw:
    return {"type": "Warning", "reason": reason, "message": message, "count": count, "lastTimestamp": NOW}


def documents(text: str) -> list[Any]:
    """JSON objects, one a line."""
    return [json.loads(line) for line in text.splitlines()]
