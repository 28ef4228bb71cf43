"""The policy as a table: what was seen, what is done."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring_operator.observe import Failure, FailureClass, History, PodLook, Table, observe
from ring_operator.reconcile import Action, Decision, Reason, decide
from ring_operator.spec.workers import Budget, Recovery
from ring_worker.contract import AgentState, AgentStatus, ExitCode

RECOVERY = Recovery(budget=Budget(application=2, infrastructure=4, noProgress=3), stallTimeoutSeconds=60)
FIRST = Table(epoch=1, published=True)
NONE = Table()


def status(pod: str, state: AgentState, epoch: int = 1, **more: Any) -> AgentStatus:
    plain: dict[str, Any] = {"step": 5, "progress_age_seconds": 1.0, "checkpoint_step": -1, **more}
    return AgentStatus(pod=pod, job_uid="uid", epoch=epoch, state=state.value, **plain)


def look(pod: str, state: AgentState, epoch: int = 1, **more: Any) -> PodLook:
    return PodLook(pod, status=status(pod, state, epoch, **more))


def broken(pod: str, exit_code: int, epoch: int = 1) -> PodLook:
    return look(pod, AgentState.BROKEN, epoch, failed_rank=3, exit_code=exit_code, error="what it said last")


def deaf(pod: str, state: AgentState, epoch: int, table_seconds: float) -> PodLook:
    return dataclasses.replace(look(pod, state, epoch), table_seconds=table_seconds)


WAITING = [look("a", AgentState.WAITING, 0), look("b", AgentState.WAITING, 0)]
RUNNING_B = look("b", AgentState.RUNNING)
DONE = PodLook("b", ended=True, exit_code=0)
KILLED_B = PodLook("b", ended=True, exit_code=-9)
HANGING = [look(pod, AgentState.RUNNING, progress_age_seconds=61.0) for pod in "ab"]


def decision(looks: list[PodLook], table: Table = FIRST, history: History | None = None) -> Decision:
    return decide(RECOVERY, observe(looks, table, history or History()))


@pytest.mark.parametrize(
    "looks, table, action, reason, epoch",
    [
        ([PodLook("a", preparing=True), WAITING[1]], NONE, Action.WAIT, Reason.PREPARING, 1),
        ([PodLook("a", silent_seconds=2), WAITING[1]], NONE, Action.WAIT, Reason.PREPARING, 1),
        (WAITING, NONE, Action.PUBLISH, Reason.READY, 1),
        (WAITING, Table(epoch=6), Action.PUBLISH, Reason.READY, 6),
        (WAITING, FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([look("a", AgentState.RUNNING), RUNNING_B], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([look("a", AgentState.RUNNING), DONE], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([look("a", AgentState.SUCCEEDED), DONE], FIRST, Action.SUCCEED, Reason.COMPLETED, 1),
        ([broken("a", 70), RUNNING_B], FIRST, Action.RESTART, Reason.BROKEN, 2),
        ([broken("a", 70, epoch=1), RUNNING_B], Table(2, published=True), Action.KEEP, Reason.RUNNING, 2),
        ([broken("a", ExitCode.INVALID_CONFIG), RUNNING_B], FIRST, Action.FAIL, Reason.NOT_RETRYABLE, 1),
        ([broken("a", ExitCode.CORRUPT_DATA), KILLED_B], FIRST, Action.FAIL, Reason.NOT_RETRYABLE, 1),
        ([broken("a", ExitCode.NO_RESTART), RUNNING_B], FIRST, Action.FAIL, Reason.NOT_RETRYABLE, 1),
        ([broken("a", ExitCode.RESTART), RUNNING_B], FIRST, Action.RESTART, Reason.BROKEN, 2),
        ([PodLook("a", ended=True, exit_code=65), WAITING[1]], NONE, Action.FAIL, Reason.NOT_RETRYABLE, 1),
        ([PodLook("a", ended=True, exit_code=1), WAITING[1]], NONE, Action.RESTART, Reason.BROKEN, 1),
        (HANGING, FIRST, Action.RESTART, Reason.BROKEN, 2),
        ([HANGING[0], RUNNING_B], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([HANGING[0], DONE], FIRST, Action.RESTART, Reason.BROKEN, 2),
        ([HANGING[0], look("b", AgentState.WAITING, 0)], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([HANGING[0], deaf("b", AgentState.WAITING, 0, 59)], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([HANGING[0], deaf("b", AgentState.WAITING, 0, 61)], FIRST, Action.RESTART, Reason.BROKEN, 2),
        ([HANGING[0], deaf("b", AgentState.RUNNING, 1, 61)], Table(2, True), Action.RESTART, Reason.BROKEN, 3),
        ([look("a", AgentState.RUNNING), deaf("b", AgentState.RUNNING, 1, 61)], FIRST, Action.KEEP, Reason.RUNNING, 1),
        ([WAITING[0], deaf("b", AgentState.WAITING, 0, 61)], NONE, Action.PUBLISH, Reason.READY, 1),
    ],
)
def test_the_first_rule_that_fits(
    looks: list[PodLook], table: Table, action: Action, reason: Reason, epoch: int
) -> None:
    made = decision(looks, table)
    assert (made.action, made.reason, made.table.epoch) == (action, reason, epoch)


@pytest.mark.parametrize(
    "looks, replaced",
    [
        ([broken("a", 70), RUNNING_B], ()),
        ([look("a", AgentState.RUNNING), KILLED_B], ("b",)),
        ([broken("a", 70), DONE], ("b",)),
        ([look("a", AgentState.RUNNING), dataclasses.replace(RUNNING_B, silent_seconds=61)], ("b",)),
        ([look("a", AgentState.RUNNING), deaf("b", AgentState.WAITING, 0, 61)], ("b",)),
        (HANGING, ()),
    ],
    ids=["a rank", "the pod", "done too early", "a mute agent", "a deaf agent", "a hang"],
)
def test_only_pods_without_an_agent_are_replaced(looks: list[PodLook], replaced: tuple[str, ...]) -> None:
    made = decision(looks)
    assert (made.action, made.replace) == (Action.RESTART, replaced)


@pytest.mark.parametrize(
    "exit_code, kind",
    [
        (ExitCode.INVALID_CONFIG, FailureClass.FINAL),
        (ExitCode.CORRUPT_DATA, FailureClass.FINAL),
        (ExitCode.NO_RESTART, FailureClass.FINAL),
        (ExitCode.APPLICATION, FailureClass.APPLICATION),
        (ExitCode.RESTART, FailureClass.APPLICATION),
        (1, FailureClass.APPLICATION),
        (127, FailureClass.APPLICATION),
        (ExitCode.INFRASTRUCTURE, FailureClass.INFRASTRUCTURE),
        (ExitCode.TERMINATED, FailureClass.INFRASTRUCTURE),
        (-9, FailureClass.INFRASTRUCTURE),
        (None, FailureClass.INFRASTRUCTURE),
    ],
)
def test_classes_of_failure(exit_code: int | None, kind: FailureClass) -> None:
    assert Failure("a", exit_code=exit_code).kind is kind


def test_the_cause_is_told_from_its_echo() -> None:
    echo = broken("a", ExitCode.INFRASTRUCTURE)
    made = decision([echo, KILLED_B])
    assert str(made.failure) == "b was killed by SIGKILL"
    assert made.history == History(infrastructure=1, without_progress=1)


def test_a_container_runtime_says_137_for_a_kill() -> None:
    made = decision([RUNNING_B, PodLook("a", ended=True, exit_code=137)])
    assert made.failure == Failure("a", exit_code=-9)


@pytest.mark.parametrize(
    "history, exit_code, action, reason",
    [
        (History(application=1, checkpoint_step=10), 70, Action.RESTART, Reason.BROKEN),
        (History(application=2, checkpoint_step=10), 70, Action.FAIL, Reason.BUDGET_SPENT),
        (History(application=2, checkpoint_step=10), -9, Action.RESTART, Reason.BROKEN),
        (History(infrastructure=4, checkpoint_step=10), -9, Action.FAIL, Reason.BUDGET_SPENT),
        (History(without_progress=2), -9, Action.RESTART, Reason.BROKEN),
        (History(without_progress=3), -9, Action.FAIL, Reason.NO_PROGRESS),
        (History(without_progress=3, checkpoint_step=8, checkpoint_at_restart=8), -9, Action.FAIL, Reason.NO_PROGRESS),
        (History(without_progress=3, checkpoint_step=9, checkpoint_at_restart=8), -9, Action.RESTART, Reason.BROKEN),
    ],
)
def test_budgets(history: History, exit_code: int, action: Action, reason: Reason) -> None:
    made = decision([broken("a", exit_code), RUNNING_B], history=history)
    assert (made.action, made.reason) == (action, reason)


def test_a_newer_checkpoint_makes_the_count_begin_anew() -> None:
    history = History(infrastructure=3, without_progress=3, checkpoint_step=8, checkpoint_at_restart=8)
    seen = [look("a", AgentState.RUNNING, checkpoint_step=12), KILLED_B]
    assert decision(seen, history=history).history == History(
        infrastructure=4, without_progress=1, checkpoint_step=12, checkpoint_at_restart=12
    )


def test_the_newest_checkpoint_is_remembered_when_its_agent_is_gone() -> None:
    first = decision([look("a", AgentState.RUNNING, checkpoint_step=12), RUNNING_B])
    assert decision([KILLED_B, look("a", AgentState.RUNNING)], history=first.history).history.checkpoint_step == 12


def test_the_message_has_the_failure_and_the_sum() -> None:
    assert decision([broken("a", 70), RUNNING_B]).message == (
        "rank 3 in a ended with exit code 70 (application); application restart 1 of 2"
    )
    assert decision([broken("a", 70), RUNNING_B], history=History(application=2, checkpoint_step=1)).message == (
        "rank 3 in a ended with exit code 70 (application); 2 restarts for this kind of error are used up "
        "(spec.recovery.budget.application: 2)"
    )


@given(codes=st.lists(st.sampled_from([70, 1, 75, -9, 88]), min_size=7, max_size=12), steps=st.data())
def test_every_job_that_only_fails_comes_to_an_end(codes: list[int], steps: st.DataObject) -> None:
    """Whatever fails and whatever is saved between: never more restarts than the budgets allow."""
    history, checkpoint = History(), -1
    for number, code in enumerate(codes):
        checkpoint += steps.draw(st.integers(0, 1))
        seen = [dataclasses.replace(broken("a", code)), look("b", AgentState.RUNNING, checkpoint_step=checkpoint)]
        made = decision(seen, history=history)
        assert made.action in (Action.RESTART, Action.FAIL)
        if made.action is Action.FAIL:
            return
        assert made.history.restarts == number + 1 <= 2 + 4
        history = made.history
    raise AssertionError("seven failures exceed the budgets")
