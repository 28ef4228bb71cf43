"""Where a pod may run, as the scheduler is told it."""

from __future__ import annotations

from collections.abc import Iterable

from ring_operator import names
from ring_operator.render.metadata import Manifest
from ring_operator.spec import TrainingJob


def scheduling(job: TrainingJob, avoid: Iterable[str]) -> Manifest:
    """Fields of the pod; those that say nothing are left out. `avoid`: nodes, beside those that the job excludes."""
    workers = job.spec.workers
    fields = {
        "nodeSelector": dict(workers.node_selector),
        "affinity": {**_off(sorted({*job.spec.placement.exclude_nodes, *avoid})), **_apart(job)},
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in workers.tolerations],
        "priorityClassName": workers.priority_class_name,
        "serviceAccountName": workers.service_account_name,
    }
    return {name: value for name, value in fields.items() if value}


def _off(nodes: list[str]) -> Manifest:
    """Not on these nodes. By name, which a node cannot change as it can its labels; the API takes one name a row."""
    if not nodes:
        return {}
    rows = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]
    required = {"nodeSelectorTerms": [{"matchFields": rows}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _apart(job: TrainingJob) -> Manifest:
    """Each pod of a job has a node of its own: two on one would share its links, and fall together."""
    term = {"labelSelector": {"matchLabels": {names.LABEL_JOB: job.name}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
