"""What a run that is gone on with may change: everything but what decides what is learnt.

In: the manifest that the run was started with, and that of now, as plain values. Out: a fault for each field that
differs and may not. New fields of the manifest are kept unless `_FREE` names them.
"""

from __future__ import annotations

import json
from typing import Any

from ring_operator.errors import Fault
from ring_operator.spec import TrainingJob

# What may differ from the manifest of the run that is gone on with; the weights and the data do not depend on it.
_FREE = (
    "apiVersion",
    "metadata",
    "spec.activeDeadlineSeconds",
    "spec.checkpoint",
    "spec.data.prepared",
    "spec.data.workers",
    "spec.evaluation",
    "spec.gang",
    "spec.managedBy",
    "spec.parallelism",
    "spec.placement",
    "spec.recovery",
    "spec.suspend",
    "spec.training.logEverySteps",
    "spec.training.offload",
    "spec.training.recompute",
    "spec.training.steps",
    "spec.ttlSecondsAfterFinished",
    "spec.workers",
)


def manifest_of(job: TrainingJob) -> dict[str, Any]:
    """The manifest in full, as plain values."""
    plain = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert isinstance(plain, dict)
    return plain


def changed_fields(before: Any, now: Any) -> list[Fault]:
    """One fault for each field that decides what is learnt and is not as it was."""
    old, new = _flat(before), _flat(now)
    changed = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    return [
        Fault(
            path,
            f"{_shown(new.get(path))}, but the run in this folder was started with {_shown(old.get(path))}",
            "Change it back, or start another run: --overwrite, or --output with another folder.",
        )
        for path in changed
        if not any(path == free or path.startswith(f"{free}.") for free in _FREE)
    ]


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat
