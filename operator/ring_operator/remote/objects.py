"""Objects of the API server -> what a person wants to know of a job, its pods and its events.

Pure, and never raises for what an object holds: a status that makes no sense is one that is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ring_operator import names
from ring_operator.observe.pods import PodFacts, pod_facts, seconds_of
from ring_operator.status import JobStatus
from ring_operator.status.document import Condition

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One RingTrainingJob. `created`: seconds since 1970. `raw`: as the API server gave it."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    created: float
    suspend: bool
    deleting: bool
    status: JobStatus
    raw: Raw

    @property
    def state(self) -> str:
        """As `kubectl get` shows it; Pending before an operator has seen the job."""
        return "Deleting" if self.deleting else self.status.state or "Pending"

    @property
    def is_current(self) -> bool:
        """Whether the status is of the spec as it is now."""
        return self.status.observed_generation >= self.generation

    @property
    def has_ended(self) -> bool:
        return self.status.completion_time is not None

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.status.conditions if c.type == kind), None)

    def holds(self, kind: str) -> bool:
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of a job. `phase`: what it does, in a word."""

    facts: PodFacts
    phase: str

    @property
    def agent_began(self) -> bool:
        """Whether the agent's container has started, so that it has logs."""
        return self.facts.agent_started > 0 or (self.facts.ended and self.phase != "PrepareFailed")


@dataclass(frozen=True, slots=True)
class EventSeen:
    """`last`: seconds since 1970, of the newest of `count` times."""

    type: str
    reason: str
    message: str
    count: int
    last: float


def job_seen(raw: Raw) -> JobSeen:
    metadata, spec = _map(raw, "metadata"), _map(raw, "spec")
    return JobSeen(
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        generation=_whole(metadata.get("generation")),
        version=str(metadata.get("resourceVersion") or ""),
        created=seconds_of(metadata.get("creationTimestamp")),
        suspend=spec.get("suspend") is True,
        deleting=bool(metadata.get("deletionTimestamp")),
        status=_status(raw),
        raw=raw,
    )


def pods_seen(raws: Iterable[Raw], job_uid: str) -> list[PodSeen]:
    """The job's own pods in the order of their numbers; of a number, the newest attempt only."""
    newest: dict[int, PodSeen] = {}
    for raw in raws:
        facts = pod_facts(raw)
        if facts is None or facts.job_uid != job_uid:
            continue
        known = newest.get(facts.index)
        if known is None or facts.attempt > known.facts.attempt:
            newest[facts.index] = PodSeen(facts, _phase(raw, facts))
    return [newest[index] for index in sorted(newest)]


def events_seen(raws: Iterable[Raw]) -> list[EventSeen]:
    """The oldest first."""
    return sorted(map(_event, raws), key=lambda event: event.last)


def _status(raw: Raw) -> JobStatus:
    try:
        return JobStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        return JobStatus()


def _phase(raw: Raw, facts: PodFacts) -> str:
    if facts.deleting_since:
        return "Terminating"
    phase = str(_map(raw, "status").get("phase") or "Pending")
    if phase == "Failed" and _prepare_failed(raw):
        return "PrepareFailed"
    if facts.trouble:
        return facts.trouble.partition(":")[0]
    if phase == "Pending" and facts.bound:
        return "Preparing" if _prepare_state(raw, "running") else "Starting"
    return phase


def _prepare_failed(raw: Raw) -> bool:
    return _whole(_prepare_state(raw, "terminated").get("exitCode")) != 0


def _prepare_state(raw: Raw, kind: str) -> Raw:
    statuses = _map(raw, "status").get("initContainerStatuses")
    for container in statuses if isinstance(statuses, list) else ():
        if isinstance(container, Mapping) and container.get("name") == names.PREPARE_CONTAINER:
            return _map(_map(container, "state"), kind)
    return {}


def _event(raw: Raw) -> EventSeen:
    """Of either generation: the newer one counts in `series` and tells its times in `eventTime`."""
    series = _map(raw, "series")
    times = (series.get("lastObservedTime"), raw.get("lastTimestamp"), raw.get("eventTime"), raw.get("firstTimestamp"))
    return EventSeen(
        type=str(raw.get("type") or ""),
        reason=str(raw.get("reason") or ""),
        message=str(raw.get("message") or ""),
        count=_whole(series.get("count") or raw.get("count")) or 1,
        last=next((seconds_of(time) for time in times if time), 0.0),
    )


def _map(raw: Any, key: str) -> Raw:
    value = raw.get(key) if isinstance(raw, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
