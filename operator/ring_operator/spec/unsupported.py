"""What the manifest can say and the program cannot do, or not where the job is to run: one table, shared by all.

The schema is whole from the start, so that manifests written today stay valid; nothing in it is ever read and
ignored. A row leaves this table in the change that builds the thing. Rows of `CLUSTER_ONLY` are things that an
operator does and `ringctl run` cannot: they bind a job on this machine alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ring_operator import names
from ring_operator.errors import Fault
from ring_operator.spec.job import JobSpec, TrainingJob
from ring_operator.spec.workers import Placement, Recovery


@dataclass(frozen=True, slots=True)
class Gap:
    """`asked`: what of it the spec asks for, as said in the message, or None."""

    path: str
    asked: Callable[[JobSpec], str | None]
    instead: str


def unsupported(job: TrainingJob, machine: bool = False) -> tuple[Fault, ...]:
    """A fault for everything that the job asks for and does not get. `machine`: on this machine, not on a cluster."""
    faults = _faults(job.spec, GAPS, "is not built yet")
    return (*faults, *_faults(job.spec, CLUSTER_ONLY, "is for jobs on a cluster")) if machine else tuple(faults)


def _faults(spec: JobSpec, gaps: tuple[Gap, ...], why: str) -> list[Fault]:
    asked = ((gap, gap.asked(spec)) for gap in gaps)
    return [Fault(f"spec.{gap.path}", f"{said} {why}", gap.instead) for gap, said in asked if said]


def _degree(name: str) -> Callable[[JobSpec], str | None]:
    def asked(spec: JobSpec) -> str | None:
        degree = getattr(spec.parallelism, name)
        return f"{name} {degree}" if isinstance(degree, int) and degree > 1 else None

    return asked


def _offload(spec: JobSpec) -> str | None:
    return f"offload {spec.training.offload}" if spec.training.offload != "none" else None


def _gang(spec: JobSpec) -> str | None:
    if spec.gang.queue is not None:
        return "a queue"
    return f"gang scheduling by {spec.gang.backend}" if spec.gang.backend not in ("auto", "none") else None


def _needle(spec: JobSpec) -> str | None:
    return "the needle evaluation" if spec.evaluation.needle else None


GAPS: tuple[Gap, ...] = (
    Gap("parallelism.tensor", _degree("tensor"), "Take tensor 1 and a larger context degree."),
    Gap("parallelism.pipeline", _degree("pipeline"), "Take pipeline 1 and a larger context degree."),
    Gap("model.hf", lambda spec: "a Hugging Face model" if spec.model.hf else None, "Take preset or architecture."),
    Gap(
        "data.source.parquet",
        lambda spec: "parquet" if spec.data.source.parquet else None,
        "Write the rows to JSON lines and take jsonl.",
    ),
    Gap("data.source.tokens", lambda spec: "tokens" if spec.data.source.tokens else None, "Take path or jsonl."),
    Gap("training.offload", _offload, "Take none, and recompute: full where memory is short."),
    Gap(
        "training.schedule.kind",
        lambda spec: "wsd" if spec.training.schedule.kind == "wsd" else None,
        "Take cosine or constant.",
    ),
    Gap("evaluation.needle", _needle, "Leave it out; heldOut measures the loss on held-out documents."),
    Gap("gang", _gang, "Leave it out: the operator's own gates see to it that all pods get nodes, or none does."),
)

CLUSTER_ONLY: tuple[Gap, ...] = (
    Gap(
        "placement",
        lambda spec: "placement" if spec.placement != Placement() else None,
        "Leave it out: all ranks are on this machine.",
    ),
    Gap(
        "recovery.excludeNodeAfter",
        lambda spec: "avoiding nodes" if spec.recovery.exclude_node_after != Recovery().exclude_node_after else None,
        "Leave it out.",
    ),
    Gap(
        "workers.disruptionBudget",
        lambda spec: "a disruption budget" if spec.workers.disruption_budget else None,
        "Leave it out.",
    ),
    Gap(
        "managedBy",
        lambda spec: "another controller" if spec.managed_by != names.OPERATOR else None,
        f"Take {names.OPERATOR}, or leave it out.",
    ),
    Gap(
        "suspend", lambda spec: "suspend" if spec.suspend else None, "Stop the run with Ctrl-C; it saves a checkpoint."
    ),
    Gap(
        "activeDeadlineSeconds",
        lambda spec: "a deadline" if spec.active_deadline_seconds is not None else None,
        "Leave it out.",
    ),
    Gap(
        "ttlSecondsAfterFinished",
        lambda spec: "deletion after the end" if spec.ttl_seconds_after_finished is not None else None,
        "Leave it out.",
    ),
)
