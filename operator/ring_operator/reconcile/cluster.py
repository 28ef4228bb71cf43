"""View -> Outcome: one level-triggered look at a job on a cluster, the same for create, update, resume and timer.

What must outlive the pods (epoch, attempts, budgets) is part of the returned status, which is written before any of the
acts: an operator that dies in between finds it, and does the rest.
"""

from __future__ import annotations

import dataclasses

from ring_operator.observe import Observed, observe
from ring_operator.observe.pods import seconds_of, timestamp_of
from ring_operator.reconcile.decide import Action, Decision, Reason, decide
from ring_operator.reconcile.ending import after_the_end, ended, restart_asked, started_anew, suspended
from ring_operator.reconcile.looks import history_of, looks_at, table_of
from ring_operator.reconcile.nodes import charge
from ring_operator.reconcile.place import chooses, may_create, placing
from ring_operator.reconcile.ranks import rank_table, ranked, ranks_manifest
from ring_operator.reconcile.report import running
from ring_operator.reconcile.view import (
    Act,
    Apply,
    CollectStacks,
    Create,
    Delete,
    Outcome,
    Publish,
    Remove,
    Stamp,
    Tell,
    View,
    with_hash_apart,
)
from ring_operator.render import Slot, pod, stacks_map
from ring_operator.status.document import Attempt, Restarts

OPTIONAL = frozenset({"PodDisruptionBudget"})  # children that a change of the spec can make superfluous
LOOK_AGAIN_SECONDS = 5.0  # while something is on its way of which no event tells


def reconcile(view: View) -> Outcome:
    """Everything that is to be done for one job now."""
    if restart_asked(view):
        return started_anew(view)
    if view.status.completion_time is not None:
        return after_the_end(view)
    if view.job.spec.suspend:
        return suspended(view)
    view = _begun(view)
    if message := _past_deadline(view):
        return ended(view, Reason.DEADLINE, message)
    seen = observe(looks_at(view), table_of(view), history_of(view.status))
    decision = decide(view.job.spec.recovery, seen)
    match decision.action:
        case Action.RESTART:
            return _restart(view, seen, decision)
        case Action.SUCCEED:
            return ended(view, decision.reason, f"all {view.plan.steps} steps are done", failed=False)
        case Action.FAIL:
            return ended(view, decision.reason, decision.message)
        case Action.PUBLISH:
            return _publish(view, seen, decision)
    return _keep(view, seen)


def _begun(view: View) -> View:
    """A job that takes up work: now, or anew after a pause."""
    if view.status.start_time is not None:
        return view
    return dataclasses.replace(view, status=view.status.model_copy(update={"start_time": timestamp_of(view.now)}))


def _past_deadline(view: View) -> str:
    limit = view.job.spec.active_deadline_seconds
    if limit is None or view.now - seconds_of(view.status.start_time) < limit:
        return ""
    return f"it ran for longer than spec.activeDeadlineSeconds: {limit}"


def _keep(view: View, seen: Observed) -> Outcome:
    """Children and pods that are missing, epochs that are not stamped yet, pods that nobody wants."""
    acts: list[Act] = [*_children(view), *_strays(view)]
    if view.published:
        return Outcome(running(view, seen), (*acts, *_stamps(view, view.wanted_epoch)), LOOK_AGAIN_SECONDS)
    placed = placing(view)
    status = running(dataclasses.replace(view, status=placed.status), seen, placed.refused)
    missing = [] if placed.acts or not may_create(view) else _missing(view)
    return Outcome(status, (*acts, *missing, *placed.acts), LOOK_AGAIN_SECONDS)


def _publish(view: View, seen: Observed, decision: Decision) -> Outcome:
    order = ranked(view)
    table = rank_table(view, order.pods, decision.table.epoch)
    manifest = ranks_manifest(view, table)
    status = view.status.model_copy(update={"placement": order.placement})
    published = dataclasses.replace(view, table=table, published_at=view.now, status=status)
    status = running(published, seen).model_copy(update={"epoch": table.epoch})
    told = Tell("Normal", "EpochStarted", f"epoch {table.epoch}: {table.world_size} ranks on {view.plan.nodes} nodes")
    return Outcome(
        status,
        (*_children(view), Publish(table, manifest), *_stamps(view, table.epoch), told),
        LOOK_AGAIN_SECONDS,
    )


def _restart(view: View, seen: Observed, decision: Decision) -> Outcome:
    """Counters first; the pods that are to be replaced go; the others keep their agents and wait for the next epoch."""
    assert decision.failure is not None
    charged = charge(view, decision.failure)
    useless = {*decision.replace, *charged.evicted}
    attempts = {**view.attempts, **{i: view.attempts.get(i, 0) + 1 for i, n in enumerate(view.names) if n in useless}}
    counted = view.status.model_copy(
        update={
            "epoch": decision.table.epoch,
            "attempts": tuple(Attempt(index=i, attempt=a) for i, a in sorted(attempts.items())),
            "restarts": restarts_of(decision),
            "node_failures": charged.failures,
            "excluded_nodes": charged.excluded,
            "last_failure": str(decision.failure),
        }
    )
    stacks = (_collection(view),) if decision.failure.stalled_seconds else ()
    acts = (
        *stacks,
        Tell("Warning", decision.reason, decision.message),
        *(Tell("Warning", "NodeExcluded", message) for message in charged.messages),
        *(Delete(p.name, p.uid, 0 if p.node in view.unready else None) for p in view.pods if p.name in useless),
    )
    status = running(dataclasses.replace(view, status=counted), seen)
    return Outcome(status, acts, again=0.0)


def _collection(view: View) -> CollectStacks:
    return CollectStacks(stacks_map(view.job, view.place), view.names, view.wanted_epoch)


def restarts_of(decision: Decision) -> Restarts:
    history = decision.history
    return Restarts(
        application=history.application,
        infrastructure=history.infrastructure,
        total=history.restarts,
        without_progress=history.without_progress,
        checkpoint_at_restart=history.checkpoint_at_restart,
    )


def _children(view: View) -> list[Act]:
    """Those that are not there, or not as they should be."""
    wanted = ((*with_hash_apart(child), child) for child in view.wanted_children)
    differing = [Apply(child) for identity, digest, child in wanted if view.children.get(identity) != digest]
    kept = {with_hash_apart(child)[0] for child in view.wanted_children}
    return [
        *differing,
        *(Remove(kind, name) for kind, name in view.children if kind in OPTIONAL - {k for k, _ in kept}),
    ]


def _missing(view: View) -> list[Act]:
    """Pods that are to be created, away from nodes that failed. A namesake on its way out is waited for."""
    avoid = tuple(entry.node for entry in view.status.excluded_nodes if seconds_of(entry.until) > view.now)
    before = view.wanted_epoch - 1
    slots = (
        Slot(i, view.attempts.get(i, 0), avoid, before, chooses(view))
        for i, name in enumerate(view.names)
        if name not in view.by_name
    )
    return [Create(pod(view.job, view.plan, view.place, slot)) for slot in slots]


def _strays(view: View) -> list[Act]:
    """Pods of former attempts, or of a plan that had more of them."""
    wanted = set(view.names)
    return [
        Delete(p.name, p.uid, 0 if p.node in view.unready else None)
        for p in view.pods
        if p.name not in wanted and (not p.deleting_since or p.node in view.unready)
    ]


def _stamps(view: View, epoch: int) -> list[Act]:
    pods = (view.by_name.get(name) for name in view.names)
    return [Stamp(p.name, epoch) for p in pods if p and p.epoch != epoch and not p.ended and not p.deleting_since]
