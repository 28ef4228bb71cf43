"""Observed -> Decision: the whole policy of starting, restarting and ending a job, on one page.

A pure function: whoever observes (the cluster or this machine) also carries the decision out, and hands its `history`
back with the next look. A failure ends an epoch; whether there is another depends on its class and on three budgets.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ring_operator.observe import Failure, FailureClass, History, Observed, Table
from ring_operator.spec.workers import Recovery


class Action(enum.StrEnum):
    WAIT = "wait"  # pods are on their way
    PUBLISH = "publish"  # the rank table
    KEEP = "keep"
    RESTART = "restart"  # withdraw the rank table, replace the pods without an agent
    SUCCEED = "succeed"
    FAIL = "fail"


class Reason(enum.StrEnum):
    PREPARING = "Preparing"
    READY = "Ready"
    RUNNING = "Running"
    BROKEN = "Broken"
    COMPLETED = "Completed"
    NOT_RETRYABLE = "NotRetryable"
    NO_PROGRESS = "NoProgress"
    BUDGET_SPENT = "BudgetSpent"
    DEADLINE = "DeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Decision:
    """`table`: the one there shall be from now on. `replace`: pods to be started anew."""

    action: Action
    reason: Reason
    table: Table
    history: History
    message: str = ""
    failure: Failure | None = None
    replace: tuple[str, ...] = ()


def decide(recovery: Recovery, seen: Observed) -> Decision:
    """First rule that fits wins; order is the policy."""
    if seen.succeeded:
        return Decision(Action.SUCCEED, Reason.COMPLETED, seen.table, seen.history)
    if failure := seen.cause or seen.stall(recovery.stall_timeout_seconds):
        return recover(recovery, seen, failure)
    if seen.table.published:
        return Decision(Action.KEEP, Reason.RUNNING, seen.table, seen.history)
    if seen.ready:
        return Decision(Action.PUBLISH, Reason.READY, seen.table.publish(), seen.history)
    return Decision(Action.WAIT, Reason.PREPARING, seen.table, seen.history)


def recover(recovery: Recovery, seen: Observed, failure: Failure) -> Decision:
    """Another epoch, or the end."""
    budget, history = recovery.budget, seen.history
    if failure.kind is FailureClass.FINAL:
        return _end(seen, failure, Reason.NOT_RETRYABLE, "the same would happen again")
    if history.fruitless >= budget.no_progress:
        spent = f"{history.fruitless} restarts in a row brought no newer checkpoint"
        return _end(
            seen, failure, Reason.NO_PROGRESS, f"{spent} (spec.recovery.budget.noProgress: {budget.no_progress})"
        )
    used, allowed = _budget(recovery, history, failure.kind)
    if used >= allowed:
        spent = f"{used} restarts for this kind of error are used up"
        return _end(seen, failure, Reason.BUDGET_SPENT, f"{spent} (spec.recovery.budget.{failure.kind}: {allowed})")
    return Decision(
        action=Action.RESTART,
        reason=Reason.BROKEN,
        table=seen.table.withdraw(),
        history=history.restarted(failure.kind),
        message=f"{failure}; {failure.kind} restart {used + 1} of {allowed}",
        failure=failure,
        replace=_to_replace(seen, failure),
    )


def _to_replace(seen: Observed, failure: Failure) -> tuple[str, ...]:
    """Pods without an agent, and one whose agent does not answer, or not to the rank table."""
    useless = failure.silent_seconds or failure.behind_seconds
    return (*seen.without_agent, failure.pod) if useless else seen.without_agent


def _budget(recovery: Recovery, history: History, kind: FailureClass) -> tuple[int, int]:
    """Used and allowed restarts of a class."""
    if kind is FailureClass.APPLICATION:
        return history.application, recovery.budget.application
    return history.infrastructure, recovery.budget.infrastructure


def _end(seen: Observed, failure: Failure, reason: Reason, why: str) -> Decision:
    return Decision(Action.FAIL, reason, seen.table, seen.history, f"{failure}; {why}", failure)
