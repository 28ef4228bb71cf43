"""Conditions as Kubernetes keeps them: one a type, with the time at which it changed last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ring_operator.status.document import Condition, JobStatus

PLANNED, PLACED, RUNNING, PROGRESSING = "Planned", "Placed", "Running", "Progressing"
DEGRADED, SUSPENDED, SUCCEEDED, FAILED = "Degraded", "Suspended", "Succeeded", "Failed"
MESSAGE_MAX = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one type now."""

    type: str
    true: bool
    reason: str
    message: str = ""


def with_findings(status: JobStatus, findings: Iterable[Finding], generation: int, now: str) -> JobStatus:
    """The status with what was found; other conditions stay as they were. `now`: RFC 3339."""
    kept = {condition.type: condition for condition in status.conditions}
    for finding in findings:
        kept[finding.type] = _condition(finding, kept.get(finding.type), generation, now)
    return status.model_copy(update={"conditions": tuple(kept.values()), "observed_generation": generation})


def _condition(finding: Finding, before: Condition | None, generation: int, now: str) -> Condition:
    value = "True" if finding.true else "False"
    changed = before is None or before.status != value
    return Condition(
        type=finding.type,
        status=value,
        reason=finding.reason,
        message=finding.message[:MESSAGE_MAX],
        observed_generation=generation,
        last_transition_time=now if changed or before is None else before.last_transition_time,
    )


def is_true(status: JobStatus, type_: str) -> bool:
    return any(condition.type == type_ and condition.status == "True" for condition in status.conditions)
