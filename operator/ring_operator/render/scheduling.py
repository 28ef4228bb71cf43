"""Where a pod may run, as the scheduler is told it."""

from __future__ import annotations

from collections.abc import Iterable

from ring_operator import names
from ring_operator.render.metadata import Manifest
from ring_operator.spec import TrainingJob


def scheduling(job: TrainingJob, avoid: Iterable[str], gated: bool) -> Manifest:
    """Fields of the pod; those that say nothing are left out. `avoid`: nodes, beside those that the job excludes.

    A gated pod says of no node that it must not get it: required affinity that says anything can only be narrowed
    later, and the one node that it gets is none of those.
    """
    workers = job.spec.workers
    off = {} if gated else _off(sorted({*job.spec.placement.exclude_nodes, *avoid}))
    fields = {
        "schedulingGates": [{"name": names.GATE}] if gated else [],
        "nodeSelector": dict(workers.node_selector),
        "affinity": {**off, **_apart(job)},
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in workers.tolerations],
        "priorityClassName": workers.priority_class_name,
        "serviceAccountName": workers.service_account_name,
    }
    return {name: value for name, value in fields.items() if value}


def pinned(node: str, now: str) -> Manifest:
    """What is changed of a gated pod so that it runs on this node and on no other. `now`: RFC 3339."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {
        "metadata": {"annotations": {names.ANNOTATION_PINNED: now}},
        "spec": {"schedulingGates": [], "affinity": {"nodeAffinity": required}},
    }


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
