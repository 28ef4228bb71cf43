"""What the operator remembers of a job between two looks. Lost with the process, and made anew from the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ring_operator import names
from ring_operator.errors import Fault, UserError
from ring_operator.observe.pods import seconds_of
from ring_operator.plan import ParallelPlan, machines_of
from ring_operator.plan import plan as plan_job
from ring_operator.raw import Raw
from ring_operator.reconcile.view import Identity
from ring_operator.render import Manifest, Place, children, cluster_place
from ring_operator.spec import TrainingJob, job_of, unsupported
from ring_operator.status.document import JobStatus
from ring_worker.contract import RankTable


@dataclass(frozen=True, slots=True)
class Planned:
    """What follows from the spec alone."""

    job: TrainingJob
    plan: ParallelPlan
    place: Place
    children: tuple[Manifest, ...]


@dataclass(slots=True)
class Memo:
    """`status`: as it is now; `written`: as the API server has it. `asked_all`: when all agents were asked last
    (monotonic); `alert`: ask all of them every time. `problem`: why the last look could not be finished.
    """

    identity: Identity
    status: JobStatus
    planned: Planned | UserError
    managed: bool
    table: RankTable | None = None
    table_known: bool = False
    published_at: float = 0.0
    written: JobStatus | None = None
    written_at: float = 0.0
    alert: bool = True
    asked_all: float = 0.0
    problem: str = ""


def identity_of(raw: Raw) -> Identity:
    metadata = raw.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    return Identity(
        uid=str(metadata.get("uid", "")),
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        generation=int(metadata.get("generation") or 0),
        created=seconds_of(metadata.get("creationTimestamp")),
        restart_request=str(annotations.get(names.ANNOTATION_RESTART, "")),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def status_of(raw: Raw) -> JobStatus:
    """What stands on the API server, as far as it makes sense."""
    try:
        return JobStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        return JobStatus()


def planned(raw: Raw, identity: Identity, image: str) -> Planned | UserError:
    """Raises nothing: what is wrong with a job is a fact about that job."""
    try:
        job = job_of(_as_written(raw))
        if faults := unsupported(job):
            return UserError(faults)
        plan = plan_job(job, machines_of(job.spec))
        place = cluster_place(job, identity.uid, image)
        return Planned(job, plan, place, children(job, plan, place))
    except UserError as error:
        return error
    except RecursionError:
        return UserError([Fault("", "nested too deeply to be read")])


def is_ours(raw: Raw) -> bool:
    spec = raw.get("spec")
    return not isinstance(spec, Mapping) or spec.get("managedBy", names.OPERATOR) == names.OPERATOR


def _as_written(raw: Raw) -> dict[str, Any]:
    """Without what only the API server and its clients put there."""
    metadata = {k: v for k, v in (raw.get("metadata") or {}).items() if k in ("name", "namespace")}
    kind = {"apiVersion": names.API_VERSION, "kind": names.KIND}  # the items of a list do not say it
    return {**kind, "metadata": metadata, **({"spec": raw["spec"]} if "spec" in raw else {})}
