"""Pods as the API server gives them -> the few facts that decisions need.

Pure, and never raises for what an object holds: a pod that makes no sense as a member of a job is None. What is kept is
small, since an operator holds it for every pod of every job.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from ring_operator import names
from ring_operator.observe.failures import FailureClass
from ring_operator.raw import Raw, items, mapping
from ring_operator.topology.pods import pinned_to

_GONE_REASONS = ("Evicted", "NodeLost", "Preempting", "NodeShutdown", "Terminated", "UnexpectedAdmissionError")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of a job. Times in seconds since 1970, 0 where something has not happened.

    `epoch`: of the rank table that its annotation speaks of. `agent_started`: its agent's container runs since then.
    `trouble`: why it does not get on, as Kubernetes says it. `reason` and `blame`: of an ended pod, see `Failure`.
    `gated`: the scheduler is kept off it until its node is chosen. `pinned`: the only node that it may run on, since
    `pinned_at`.
    """

    namespace: str
    name: str
    uid: str
    job: str
    job_uid: str
    index: int
    attempt: int
    epoch: int = 0
    node: str = ""
    address: str = ""
    agent_started: float = 0.0
    deleting_since: float = 0.0
    ended: bool = False
    exit_code: int | None = None
    reason: str = ""
    blame: FailureClass | None = None
    trouble: str = ""
    gated: bool = False
    pinned: str = ""
    pinned_at: float = 0.0

    @property
    def bound(self) -> bool:
        return bool(self.node)


def pod_facts(raw: Raw) -> PodFacts | None:
    """The facts of a pod that belongs to a job; None where labels and owner do not say to which, in which place."""
    metadata, spec, status = mapping(raw, "metadata"), mapping(raw, "spec"), mapping(raw, "status")
    labels = mapping(metadata, "labels")
    owner = _owner(metadata)
    index, attempt = _number(labels.get(names.LABEL_POD_INDEX)), _number(labels.get(names.LABEL_ATTEMPT, "0"))
    if owner is None or index is None or attempt is None or labels.get(names.LABEL_JOB) != owner[0]:
        return None
    ended = status.get("phase") in ("Succeeded", "Failed")
    exit_code = _exit_code(status) if ended else None
    reason, blame = _reason(status) if ended else ("", None)
    return PodFacts(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        job=owner[0],
        job_uid=owner[1],
        index=index,
        attempt=attempt,
        epoch=_number(mapping(metadata, "annotations").get(names.ANNOTATION_EPOCH)) or 0,
        node=str(spec.get("nodeName") or ""),
        address=str(status.get("podIP") or ""),
        agent_started=_agent_started(status),
        deleting_since=seconds_of(metadata.get("deletionTimestamp")),
        ended=ended,
        exit_code=exit_code,
        reason=reason,
        blame=blame,
        trouble="" if ended else _trouble(status),
        gated=any(gate.get("name") == names.GATE for gate in items(spec, "schedulingGates")),
        pinned=pinned_to(spec),
        pinned_at=seconds_of(mapping(metadata, "annotations").get(names.ANNOTATION_PINNED)),
    )


def seconds_of(timestamp: Any) -> float:
    """An RFC 3339 time in seconds since 1970; 0 where there is none or it is not one."""
    try:
        return datetime.datetime.fromisoformat(str(timestamp)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def timestamp_of(seconds: float) -> str:
    """Seconds since 1970 as the API server writes times."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _owner(metadata: Raw) -> tuple[str, str] | None:
    """Name and uid of the job that controls the pod."""
    for reference in items(metadata, "ownerReferences"):
        if reference.get("kind") == names.KIND and reference.get("controller") is True:
            return str(reference.get("name", "")), str(reference.get("uid", ""))
    return None


def _agent_started(status: Raw) -> float:
    for container in items(status, "containerStatuses"):
        if container.get("name") == names.AGENT_CONTAINER:
            return seconds_of(mapping(mapping(container, "state"), "running").get("startedAt"))
    return 0.0


def _terminated(status: Raw) -> list[Raw]:
    """States of the containers that ended, the preparation first."""
    containers = [*items(status, "initContainerStatuses"), *items(status, "containerStatuses")]
    return [t for t in (mapping(mapping(c, "state"), "terminated") for c in containers) if t]


def _exit_code(status: Raw) -> int | None:
    """Of the container that failed first; 0 where all is well; None where the pod ended without any saying so."""
    if status.get("phase") == "Succeeded":
        return 0
    codes = [code for code in (t.get("exitCode") for t in _terminated(status)) if isinstance(code, int)]
    return next((code for code in codes if code), None)


def _reason(status: Raw) -> tuple[str, FailureClass | None]:
    """Of a pod's end, where Kubernetes knows better than the exit code."""
    for condition in items(status, "conditions"):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _said(condition), FailureClass.INFRASTRUCTURE
    if status.get("phase") == "Failed" and status.get("reason") in _GONE_REASONS:
        return _said(status), FailureClass.INFRASTRUCTURE
    if any(t.get("reason") == "OOMKilled" for t in _terminated(status)):
        return "out of memory (OOMKilled): more than its memory limit was used", FailureClass.APPLICATION
    return "", None


def _trouble(status: Raw) -> str:
    """What keeps a pod from starting."""
    for condition in items(status, "conditions"):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _said(condition) if condition.get("reason") != "SchedulingGated" else ""
    for container in [*items(status, "initContainerStatuses"), *items(status, "containerStatuses")]:
        waiting = mapping(mapping(container, "state"), "waiting")
        if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
            return _said(waiting)
    return ""


def _said(part: Raw) -> str:
    reason, message = str(part.get("reason") or ""), str(part.get("message") or "")
    return ": ".join(text for text in (reason, message[:512]) if text)


def _number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else None
