"""What of a job may be changed, and when: rules that compare the spec with what it was.

While a job is suspended nothing runs, so all of it may change; the next start reads it anew. While it runs only what
takes effect without a new plan may.
"""

from __future__ import annotations

from ring_operator.crd.cel import Rule
from ring_operator.spec.job import JobSpec
from ring_operator.spec.workers import Placement

FREE = ("suspend", "recovery", "placement.excludeNodes", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
NEVER = "managedBy"

_MESSAGE = (
    "may not be changed while the job runs. Suspend the job (spec.suspend: true), change it, and let it go on "
    f"(suspend: false). At any time you may change {', '.join(FREE[:-1])} and {FREE[-1]}."
)


def fixed_fields() -> tuple[str, ...]:
    """Fields of the spec that may not change while the job runs; of `placement`, those below it."""
    sections = [info.alias or name for name, info in JobSpec.model_fields.items()]
    placement = [f"placement.{info.alias or name}" for name, info in Placement.model_fields.items()]
    every = [field for section in sections for field in (placement if section == "placement" else [section])]
    return tuple(field for field in every if field not in (*FREE, NEVER))


def _optional(field: str) -> str:
    """Equality of a field that may be absent before or after."""
    both = f"has(self.{field}) && has(oldSelf.{field})"
    return f"({both} ? self.{field} == oldSelf.{field} : has(self.{field}) == has(oldSelf.{field}))"


CHANGE_RULES = (
    *(
        Rule(
            at="spec",
            holds=f"oldSelf.suspend || {_optional(field)}",
            message=_MESSAGE,
            field=f".{field}",
            forbidden=True,
        )
        for field in fixed_fields()
    ),
    Rule(
        at="spec",
        holds=_optional(NEVER),
        message="may never be changed: two controllers would look after the job. Delete the job and create it anew.",
        field=f".{NEVER}",
        forbidden=True,
    ),
)
