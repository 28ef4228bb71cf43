"""Failures held against nodes: counted, and past a number the node is avoided by this job for a time."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.observe import Failure, FailureClass
from ring_operator.observe.pods import seconds_of, timestamp_of
from ring_operator.reconcile.view import View
from ring_operator.status.document import ExcludedNode, NodeFailures

EXCLUDED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Charged:
    """The record after a failure. `evicted`: pods that are to leave a node which is avoided from now on."""

    failures: tuple[NodeFailures, ...]
    excluded: tuple[ExcludedNode, ...]
    evicted: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


def charge(view: View, failure: Failure) -> Charged:
    """Count a failure of the infrastructure against the node of its pod. Records whose time is over go."""
    excluded = tuple(entry for entry in view.status.excluded_nodes if seconds_of(entry.until) > view.now)
    counts = {entry.node: entry.failures for entry in view.status.node_failures}
    pod = view.by_name.get(failure.pod)
    if pod is None or not pod.node or failure.kind is not FailureClass.INFRASTRUCTURE:
        return Charged(_records(counts), excluded)
    count, limit = counts.get(pod.node, 0) + 1, view.job.spec.recovery.exclude_node_after
    if not limit or count < limit:
        return Charged(_records({**counts, pod.node: count}), excluded)
    counts.pop(pod.node, None)
    until = timestamp_of(view.now + EXCLUDED_SECONDS)
    entry = ExcludedNode(node=pod.node, reason=f"{count} failures, the last one: {failure}"[:4096], until=until)
    message = f"node {pod.node} is avoided until {until}: {count} failures (spec.recovery.excludeNodeAfter: {limit})"
    return Charged(
        failures=_records(counts),
        excluded=(*(e for e in excluded if e.node != pod.node), entry),
        evicted=tuple(p.name for p in view.pods if p.node == pod.node),
        messages=(message,),
    )


def _records(counts: dict[str, int]) -> tuple[NodeFailures, ...]:
    return tuple(NodeFailures(node=node, failures=count) for node, count in sorted(counts.items()))
