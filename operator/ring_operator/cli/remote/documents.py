"""What programs get by `-o json`: a job, its pods and its events as plain values. The fields are told in docs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ring_operator.observe.pods import timestamp_of
from ring_operator.remote.objects import EventSeen, JobSeen, PodSeen
from ring_worker.contract import RankTable


def job_document(job: JobSeen) -> dict[str, Any]:
    """`status` as it stands on the API server."""
    return {
        "namespace": job.namespace,
        "name": job.name,
        "uid": job.uid,
        "created": _time(job.created),
        "generation": job.generation,
        "suspend": job.suspend,
        "state": job.state,
        "status": dict(job.raw.get("status") or {}),
    }


def pod_documents(pods: Sequence[PodSeen], table: RankTable | None) -> list[dict[str, Any]]:
    """`ranks`, `ring` and `position` are of the newest rank table, and null for a pod that is not in it."""
    return [_pod(pod, table) for pod in pods]


def event_documents(events: Sequence[EventSeen]) -> list[dict[str, Any]]:
    return [
        {"type": e.type, "reason": e.reason, "message": e.message, "count": e.count, "last": _time(e.last)}
        for e in events
    ]


def _pod(pod: PodSeen, table: RankTable | None) -> dict[str, Any]:
    facts, member = pod.facts, table.member(pod.facts.name) if table else None
    return {
        "name": facts.name,
        "index": facts.index,
        "attempt": facts.attempt,
        "phase": pod.phase,
        "node": facts.node or None,
        "epoch": facts.epoch,
        "exitCode": facts.exit_code,
        "trouble": facts.trouble or facts.reason or None,
        "ranks": list(range(member.first_rank, member.first_rank + member.ranks)) if member else None,
        "ring": member.ring if member else None,
        "position": member.position if member else None,
    }


def _time(seconds: float) -> str | None:
    return timestamp_of(seconds) if seconds else None
