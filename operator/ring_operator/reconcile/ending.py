"""Jobs that do not run: suspended, ended, or asked to start anew."""

from __future__ import annotations

import dataclasses

from ring_operator.observe.pods import seconds_of, timestamp_of
from ring_operator.reconcile.decide import Reason
from ring_operator.reconcile.report import anew, finished, paused
from ring_operator.reconcile.view import Act, Delete, DeleteJob, Outcome, Tell, View
from ring_operator.status.conditions import is_true
from ring_operator.status.document import Attempt, Restarts


def suspended(view: View) -> Outcome:
    """Every pod is told to end, which lets its ranks save a checkpoint. The epoch is over, its counters stay."""
    epoch = view.wanted_epoch + view.published
    status = view.status.model_copy(update={"epoch": epoch, "start_time": None})
    told = (
        () if is_true(view.status, "Suspended") else (Tell("Normal", "Suspended", "ranks save a checkpoint and end"),)
    )
    withdrawn = dataclasses.replace(view, status=status)
    return Outcome(paused(withdrawn), (*told, *_deletions(view)))


def ended(view: View, reason: Reason, message: str, failed: bool = True) -> Outcome:
    """For good. What still runs is stopped; pods that ended stay, for their logs."""
    status = view.status.model_copy(update={"completion_time": timestamp_of(view.now)})
    done = dataclasses.replace(view, status=status)
    told = Tell("Warning" if failed else "Normal", "Failed" if failed else "Succeeded", message)
    return Outcome(finished(done, reason, message, failed), (told, *_deletions(view, only_running=True)), again=1.0)


def after_the_end(view: View) -> Outcome:
    """Only what was left undone at the end, and the end of the object itself."""
    ttl = view.job.spec.ttl_seconds_after_finished
    acts = _deletions(view, only_running=True)
    if ttl is None:
        return Outcome(view.status, tuple(acts))
    left = seconds_of(view.status.completion_time) + ttl - view.now
    return Outcome(view.status, tuple(acts), again=left) if left > 0 else Outcome(view.status, (DeleteJob(),))


def restart_asked(view: View) -> bool:
    return view.identity.restart_request[:64] not in ("", view.status.restart_request)


def started_anew(view: View) -> Outcome:
    """A person wants the ranks to start again. It counts against no budget, and a failed job gets fresh ones."""
    obeyed = view.status.model_copy(update={"restart_request": view.identity.restart_request[:64]})
    if is_true(view.status, "Succeeded"):
        return Outcome(obeyed, (Tell("Normal", "RestartIgnored", "the job has succeeded already"),))
    failed = view.status.completion_time is not None
    useless = [i for i, name in enumerate(view.names) if failed or _is_gone(view, name)]
    attempts = {**view.attempts, **{i: view.attempts.get(i, 0) + 1 for i in useless}}
    update = {
        "epoch": view.wanted_epoch + view.published,
        "attempts": tuple(Attempt(index=i, attempt=a) for i, a in sorted(attempts.items())),
        "completion_time": None,
        **({"restarts": Restarts(), "start_time": None, "excluded_nodes": (), "node_failures": ()} if failed else {}),
    }
    fresh = dataclasses.replace(view, status=obeyed.model_copy(update=update))
    return Outcome(anew(fresh), (Tell("Normal", "RestartAsked", "ranks start again, as asked"),), again=0.0)


def _is_gone(view: View, name: str) -> bool:
    """An ended pod, or one that was there for the ranks and no longer is."""
    pod = view.by_name.get(name)
    return pod.ended if pod is not None else view.published


def _deletions(view: View, only_running: bool = False) -> list[Act]:
    return [
        Delete(pod.name, pod.uid, 0 if pod.node in view.unready else None)
        for pod in view.pods
        if not (pod.deleting_since and pod.node not in view.unready) and not (only_running and pod.ended)
    ]
