"""Pods that wait for their nodes -> which node each gets, or why none can be had now.

All or nothing: gates open only when every pod is there and there is a node for each. Where a pod does not come to run
on the node that was chosen (another scheduler was quicker), every pod of the job goes, so that two jobs never wait for
each other with half of the nodes each; the next try comes later each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.observe.pods import PodFacts, seconds_of, timestamp_of
from ring_operator.placement import Placement, Refusal, find
from ring_operator.reconcile.view import Act, Delete, Pin, Tell, View
from ring_operator.status.document import ExcludedNode, JobStatus, PlacementStatus

AVOID_SECONDS = 300.0  # a node that did not take its pod, for a reason that is not seen from here
BIND_SECONDS = 30.0  # a scheduler that has nothing against a node binds a pod to it at once
_RETRY_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)


@dataclass(frozen=True, slots=True)
class Placing:
    """`status`: with the counters of the tries. `refused`: why there are no nodes now; empty: nothing is in the way."""

    status: JobStatus
    acts: tuple[Act, ...] = ()
    refused: str = ""


def chooses(view: View) -> bool:
    """Whether the operator gives the pods their nodes, not the scheduler."""
    return view.ground is not None and view.job.spec.placement.mode == "operator"


def may_create(view: View) -> bool:
    """After a try that failed, pods are made again only when their time has come."""
    tried = view.status.placement
    return tried is None or tried.retry_time is None or view.now >= seconds_of(tried.retry_time)


def placing(view: View) -> Placing:
    """What is to be done now for pods that have no node."""
    pods = [pod for name in view.names if (pod := view.by_name.get(name)) is not None]
    if not chooses(view) or view.published:
        return Placing(view.status)
    if stuck := [pod for pod in pods if _is_stuck(view, pod)]:
        return _released(view, stuck)
    gated = [pod for pod in pods if pod.gated]
    if not gated or len(pods) < view.plan.nodes or any(pod.deleting_since or pod.ended for pod in pods):
        return Placing(view.status)
    found = _placement(view, pods)
    if isinstance(found, Refusal):
        return Placing(view.status, refused=f"{found.reason}. {found.instead}")
    settled = {pod.node or pod.pinned for pod in pods}
    chosen = [node for ring in found.rings for node in ring if node not in settled]
    now = timestamp_of(view.now)
    return Placing(view.status, tuple(Pin(p.name, n, now) for p, n in zip(gated, chosen, strict=True)))


def _placement(view: View, pods: list[PodFacts]) -> Placement | Refusal:
    assert view.ground is not None
    avoided = {entry.node for entry in view.status.excluded_nodes if seconds_of(entry.until) > view.now}
    kept = frozenset(node for pod in pods if (node := pod.node or pod.pinned))
    return find(view.plan, view.job.spec.placement, view.ground(kept, frozenset(avoided)), kept)


def _is_stuck(view: View, pod: PodFacts) -> bool:
    """On its way to a node, or on one, where it will not start."""
    if pod.agent_started or pod.deleting_since or pod.ended or not pod.pinned:
        return False
    return pod.node in view.unready if pod.node else view.now - pod.pinned_at > BIND_SECONDS


def _released(view: View, stuck: list[PodFacts]) -> Placing:
    before = view.status.placement or PlacementStatus()
    wait = _RETRY_SECONDS[min(before.retries, len(_RETRY_SECONDS) - 1)]
    tried = before.model_copy(
        update={"retries": before.retries + 1, "retry_time": timestamp_of(view.now + wait), "hops": ()}
    )
    why = f"{stuck[0].name}: {stuck[0].trouble}" if stuck[0].trouble else f"{stuck[0].name} was not taken up"
    message = f"{len(stuck)} pods did not come to run on their nodes ({why}); all are made anew in {wait:.0f} s"
    until = timestamp_of(view.now + AVOID_SECONDS)
    avoided = {e.node: e for e in view.status.excluded_nodes if seconds_of(e.until) > view.now}
    avoided |= {p.pinned: ExcludedNode(node=p.pinned, reason=f"it did not take {p.name}", until=until) for p in stuck}
    deletions = (Delete(p.name, p.uid, 0 if p.node in view.unready else None) for p in view.pods)
    status = view.status.model_copy(update={"placement": tried, "excluded_nodes": tuple(avoided.values())})
    return Placing(status, (Tell("Warning", "PlacementReleased", message), *deletions), message)
