"""View and what was made of it -> the status that people and programs read. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import Iterator

from ring_operator.errors import UserError
from ring_operator.observe import Observed, PodSeen, PodState
from ring_operator.observe.pods import timestamp_of
from ring_operator.reconcile.decide import Reason
from ring_operator.reconcile.progress import progress_of, ring_statuses
from ring_operator.reconcile.view import View
from ring_operator.status import conditions as c
from ring_operator.status.conditions import Finding, with_findings
from ring_operator.status.document import JobStatus, PlanStatus

_TROUBLES_SHOWN = 3


def running(view: View, seen: Observed, refused: str = "") -> JobStatus:
    """Of a job that is on its way, runs, or starts again. `refused`: why its pods get no nodes now."""
    at_work = [pod for pod in seen.pods if _at_work(view, pod)]
    findings = (
        _planned(view),
        _placed(view, refused),
        _running(view, len(at_work)),
        _progressing(view, seen, len(at_work)),
        _degraded(view),
        Finding(c.SUSPENDED, False, "NotSuspended"),
    )
    status = view.status.model_copy(update={"state": _state(view, len(at_work)), **_plan(view)})
    status = status.model_copy(
        update={
            "epoch": view.wanted_epoch,
            "progress": progress_of(view, seen),
            "rings": ring_statuses(view),
            "rings_ready": _rings_ready(view, {pod.name for pod in at_work}),
        }
    )
    return _with(view, status, findings)


def finished(view: View, reason: Reason, message: str, failed: bool) -> JobStatus:
    state, other = (c.FAILED, c.SUCCEEDED) if failed else (c.SUCCEEDED, c.FAILED)
    findings = [
        _planned(view),
        Finding(c.RUNNING, False, state),
        Finding(c.PROGRESSING, False, state),
        Finding(state, True, reason, message),
        Finding(other, False, reason),
    ]
    seen_to_the_end = {} if failed else {"progress": progress_of(view, None)}
    zero = _rings_ready(view, set())
    status = view.status.model_copy(update={"state": state, "rings_ready": zero, **_plan(view), **seen_to_the_end})
    return _with(view, status, findings)


def paused(view: View) -> JobStatus:
    left = len(view.pods)
    message = f"{left} pods are on their way out" if left else "no pods; set spec.suspend to false to go on"
    findings = [
        _planned(view),
        Finding(c.PLACED, False, c.SUSPENDED),
        Finding(c.RUNNING, False, c.SUSPENDED),
        Finding(c.PROGRESSING, False, c.SUSPENDED),
        Finding(c.SUSPENDED, True, "Suspending" if left else "Suspended", message),
    ]
    state = "Suspending" if left else "Suspended"
    zero = _rings_ready(view, set())
    status = view.status.model_copy(update={"state": state, "rings": (), "rings_ready": zero, **_plan(view)})
    return _with(view, status, findings)


def anew(view: View) -> JobStatus:
    """Of a job that was asked to start again."""
    findings = [
        Finding(c.RUNNING, False, "RestartAsked"),
        Finding(c.FAILED, False, "RestartAsked"),
        Finding(c.PROGRESSING, False, "RestartAsked"),
    ]
    return _with(view, view.status.model_copy(update={"state": "Restarting"}), findings)


def refused(status: JobStatus, error: UserError, generation: int, now: float) -> JobStatus:
    """Of a job that cannot be understood or planned: every fault, with the field and the way out."""
    finding = Finding(c.PLANNED, False, "Invalid", "\n".join(str(fault) for fault in error.faults))
    found = with_findings(status, [finding], generation, timestamp_of(now))
    return found.model_copy(update={"state": "Invalid"})


def _with(view: View, status: JobStatus, findings: tuple[Finding, ...] | list[Finding]) -> JobStatus:
    return with_findings(status, findings, view.identity.generation, timestamp_of(view.now))


def _at_work(view: View, pod: PodSeen) -> bool:
    in_epoch = pod.state is PodState.RUNNING and pod.epoch == view.wanted_epoch
    return view.published and (in_epoch or pod.state is PodState.SUCCEEDED)


def _state(view: View, at_work: int) -> str:
    if view.published:
        return "Running" if at_work == view.plan.nodes else "Starting"
    return "Restarting" if view.wanted_epoch > 1 else "Pending"


def _plan(view: View) -> dict[str, PlanStatus]:
    plan, degrees = view.plan, view.plan.degrees
    return {
        "plan": PlanStatus(
            data=degrees.data,
            pipeline=degrees.pipeline,
            context=degrees.context,
            tensor=degrees.tensor,
            ulysses=degrees.ulysses,
            world_size=plan.world_size,
            nodes=plan.nodes,
            ranks_per_node=plan.ranks_per_node,
        )
    }


def _planned(view: View) -> Finding:
    plan, d = view.plan, view.plan.degrees
    rings = f"{len(plan.rings)} rings of {d.context}" if len(plan.rings) > 1 else f"one ring of {d.context}"
    message = f"{rings}: {plan.world_size} ranks on {plan.nodes} nodes x {plan.ranks_per_node}"
    return Finding(c.PLANNED, True, "Planned", "; ".join([message, *plan.notes]))


def _placed(view: View, refused: str = "") -> Finding:
    bound = [name for name in view.names if (pod := view.by_name.get(name)) and pod.bound]
    if len(bound) == view.plan.nodes:
        return Finding(c.PLACED, True, "Placed", "; ".join([f"all {len(bound)} pods are on nodes", *_hops(view)]))
    message = f"{len(bound)} of {view.plan.nodes} pods are on nodes"
    if refused:
        return Finding(c.PLACED, False, "NoPlacement", f"{message}; {refused}")
    return Finding(c.PLACED, False, "Waiting", "; ".join([message, *_troubles(view)]))


def _hops(view: View) -> Iterator[str]:
    """How the rings lie, as far as the network is known."""
    lies = view.status.placement
    if lies is None:
        return
    if lies.cost is None:
        yield lies.notes
        return
    yield ", ".join(f"{entry.hops} hops cross {entry.level}" for entry in lies.hops if entry.hops) or "no hops"
    yield f"cost {lies.cost:g}, at least {lies.lower_bound or 0:g}"
    if lies.notes:
        yield lies.notes


def _troubles(view: View) -> Iterator[str]:
    """What keeps pods from starting; the same words once."""
    said: dict[str, str] = {}
    for name in view.names:
        pod = view.by_name.get(name)
        if pod and pod.trouble:
            said.setdefault(pod.trouble, name)
    for trouble, name in list(said.items())[:_TROUBLES_SHOWN]:
        yield f"{name}: {trouble}"


def _running(view: View, at_work: int) -> Finding:
    nodes, epoch = view.plan.nodes, view.wanted_epoch
    if view.published and at_work == nodes:
        return Finding(c.RUNNING, True, "RanksRun", f"epoch {epoch}: {view.plan.world_size} ranks on {nodes} nodes")
    if view.published:
        return Finding(
            c.RUNNING, False, "RanksStart", f"epoch {epoch}: {at_work} of {nodes} pods have started their ranks"
        )
    waiting = len(view.answers)
    reason = "Restarting" if epoch > 1 else "Preparing"
    return Finding(c.RUNNING, False, reason, f"epoch {epoch}: {waiting} of {nodes} agents wait for it")


def _progressing(view: View, seen: Observed, at_work: int) -> Finding:
    limit = view.job.spec.recovery.stall_timeout_seconds
    steps = [pod for pod in seen.pods if _at_work(view, pod) and pod.state is PodState.RUNNING and pod.step >= 0]
    if not steps:
        return Finding(c.PROGRESSING, False, "NoStepYet" if at_work else "NotRunning")
    age = min(pod.progress_age_seconds for pod in steps)
    if age > limit / 2:
        return Finding(c.PROGRESSING, False, "Slow", f"no step for {age:.0f} s (stallTimeoutSeconds: {limit})")
    return Finding(c.PROGRESSING, True, "StepsFinish")


def _degraded(view: View) -> Finding:
    parts = [f"node {entry.node} is avoided until {entry.until}" for entry in view.status.excluded_nodes]
    if view.unready & {pod.node for pod in view.pods}:
        parts += [f"node {node} is not ready" for node in sorted(view.unready & {pod.node for pod in view.pods})]
    parts += list(_troubles(view))
    if view.problem:
        parts.append(view.problem)
    if not view.published and view.status.last_failure and view.wanted_epoch > 1:
        parts.append(f"starting again after: {view.status.last_failure}")
    return Finding(c.DEGRADED, bool(parts), "Impaired" if parts else "AllWell", "; ".join(parts))


def _rings_ready(view: View, at_work: set[str]) -> str:
    """A ring is ready when every pod with a rank of it is at work."""
    if view.table is None:
        return f"0/{len(view.plan.rings)}"
    pods = {rank: m.pod for m in view.table.members for rank in range(m.first_rank, m.first_rank + m.ranks)}
    ready = sum(all(pods.get(rank) in at_work for rank in ring.ranks) for ring in view.plan.rings)
    return f"{ready}/{len(view.plan.rings)}"
