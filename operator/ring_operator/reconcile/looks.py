"""View -> what `observe` and `decide` understand: looks at the pods there shall be, the table, the history."""

from __future__ import annotations

from ring_operator.observe import History, PodLook, Table
from ring_operator.observe.failures import FailureClass
from ring_operator.observe.pods import PodFacts
from ring_operator.reconcile.view import View
from ring_operator.status.document import JobStatus

LOST_AFTER_SECONDS = 10.0  # an agent silent for so long on a node that does not report is gone
OVERDUE_SECONDS = 30.0  # beyond its grace period a pod under deletion is not waited for


def looks_at(view: View) -> list[PodLook]:
    return [_look(view, name, view.by_name.get(name)) for name in view.names]


def table_of(view: View) -> Table:
    return Table(view.wanted_epoch, view.published)


def history_of(status: JobStatus) -> History:
    restarts, progress = status.restarts, status.progress
    return History(
        application=restarts.application,
        infrastructure=restarts.infrastructure,
        without_progress=restarts.without_progress,
        checkpoint_step=progress.last_checkpoint_step if progress else -1,
        checkpoint_at_restart=restarts.checkpoint_at_restart,
    )


def _look(view: View, name: str, pod: PodFacts | None) -> PodLook:
    if pod is None:
        return _absent(view, name)
    if pod.ended:
        return PodLook(name, ended=True, exit_code=pod.exit_code, reason=pod.reason, blame=pod.blame)
    answer = view.agents.get(name)
    silent = answer.silent if answer and pod.agent_started else 0.0
    if reason := _lost(view, pod, silent):
        return PodLook(name, ended=True, reason=reason, blame=FailureClass.INFRASTRUCTURE)
    if pod.deleting_since and not view.published:
        return PodLook(name, preparing=True)
    return PodLook(
        name=name,
        preparing=not pod.agent_started,
        status=answer.status if answer else None,
        silent_seconds=silent,
        table_seconds=min(view.now - view.published_at, view.now - pod.agent_started),
    )


def _absent(view: View, name: str) -> PodLook:
    """Before the table it is still to be made; afterwards somebody took it away."""
    if not view.published:
        return PodLook(name, preparing=True)
    return PodLook(name, ended=True, reason="the pod is gone", blame=FailureClass.INFRASTRUCTURE)


def _lost(view: View, pod: PodFacts, silent: float) -> str:
    """Why a pod that still has an object is as good as gone; empty where it is not."""
    if pod.node in view.unready and (silent > LOST_AFTER_SECONDS or not pod.agent_started):
        return f"node {pod.node} is not ready" if view.published or pod.deleting_since else ""
    grace = view.job.spec.workers.termination_grace_period_seconds
    if view.published and pod.deleting_since and view.now - pod.deleting_since > OVERDUE_SECONDS:
        return f"it did not end within {grace} s of being deleted"
    return ""
