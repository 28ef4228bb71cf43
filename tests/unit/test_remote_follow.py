"""A changing status becomes the events of a run, once each; and a job's end its outcome."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from job_manifests import job as job_of_manifest
from remote_cases import FAILED, INVALID, STARTING, SUCCEEDED, SUSPENDED, WAITING, condition, pod, progress, running
from ring_operator.cli.remote import top
from ring_operator.cli.remote.follow import Teller, outcome_of, waiting_for
from ring_operator.cli.remote.home import ClusterHome
from ring_operator.cli.view.live import LiveView
from ring_operator.cli.view.plain import PlainView
from ring_operator.local.events import Advanced, Event, Outcome, Restarting, Started, Waiting
from ring_operator.plan import Machines, plan
from ring_operator.remote.objects import JobSeen, events_seen, job_seen, pods_seen


def job(status: dict[str, Any], generation: int = 1, **metadata: Any) -> JobSeen:
    about = {"name": "tiny", "namespace": "team", "uid": "uid-tiny", "generation": generation, **metadata}
    return job_seen({"metadata": about, "spec": {}, "status": {"observedGeneration": 1, **status}})


def told(*statuses: dict[str, Any]) -> list[Event]:
    teller = Teller()
    return [event for status in statuses for event in teller.tell(job(status))]


def names_of(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_whole_life_is_told_once() -> None:
    steps = [running(1), running(1), running(2)]
    broken = {**WAITING, "state": "Restarting", "epoch": 2, "restarts": {"total": 1}, "lastFailure": "rank 1 died"}
    again = {"epoch": 2, "restarts": {"total": 1}}
    events = told(WAITING, WAITING, STARTING, *steps, broken, {**STARTING, **again}, running(2, **again), SUCCEEDED)
    assert names_of(events) == [
        "Waiting",
        "Started",
        "Advanced",
        "Advanced",
        "Restarting",
        "Waiting",
        "Started",
        "Advanced",
    ]
    assert events[0] == Waiting("1 of 2 on nodes")
    assert events[4] == Restarting("rank 1 died")
    assert isinstance(events[6], Started)
    assert (events[6].epoch, events[6].restarts) == (2, 1)
    last = events[-1]
    assert isinstance(last, Advanced)
    assert last.progress.step == 10


def test_watching_that_begins_late_tells_where_the_job_is_and_no_old_restart() -> None:
    events = told(running(5, epoch=3, restarts={"total": 2}))
    assert names_of(events) == ["Started", "Advanced"]


def test_steps_of_before_a_restart_are_not_told_while_it_starts() -> None:
    assert names_of(told({**STARTING, "epoch": 2, "progress": progress(5)})) == ["Started"]


@pytest.mark.parametrize(
    "status, said",
    [
        ({}, "no operator has taken it up yet"),
        (WAITING, "1 of 2 on nodes"),
        (SUSPENDED, "suspended: no pods"),
        ({"state": "Restarting"}, "restarting"),
        (
            {
                "state": "Pending",
                "conditions": [
                    condition("Placed", "True", "Placed"),
                    condition("Degraded", "True", "Impaired", "tiny-0: ErrImagePull"),
                    condition("Running", "False", "Preparing", "0 of 2 agents wait"),
                ],
            },
            "tiny-0: ErrImagePull",
        ),
    ],
)
def test_what_a_job_waits_for(status: dict[str, Any], said: str) -> None:
    assert waiting_for(job(status, creationTimestamp="2026-01-01T00:00:00Z")).startswith(said)


@pytest.mark.parametrize(
    "status, generation, code",
    [
        (running(3), 1, None),
        (WAITING, 1, None),
        (SUSPENDED, 1, None),
        (SUCCEEDED, 1, 0),
        (FAILED, 1, 3),
        (INVALID, 1, 1),
        (INVALID, 2, None),
    ],
    ids=["runs", "waits", "suspended", "succeeded", "failed", "invalid", "invalid before it was mended"],
)
def test_how_a_job_ends(status: dict[str, Any], generation: int, code: int | None) -> None:
    outcome = outcome_of(job(status, generation))
    assert (outcome.exit_code if outcome else None) == code


def test_a_job_that_is_gone_is_not_found() -> None:
    outcome = outcome_of(None)
    assert outcome is not None
    assert outcome.exit_code == 4


@pytest.mark.parametrize("status", [None, [], {"epoch": -1}, {"state": 7}, {"conditions": "none"}, {"unknown": 1}])
def test_a_status_that_makes_no_sense_is_one_that_is_not_there(status: Any) -> None:
    seen = job_seen({"metadata": {"name": "tiny"}, "status": status})
    assert seen.state == "Pending"


def test_only_the_newest_attempt_of_the_jobs_own_pods_is_shown() -> None:
    pods = [pod(1), pod(0), pod(1, attempt=2), pod(0, attempt=5, uid="a namesake's"), {"metadata": {"name": "stray"}}]
    assert [seen.facts.name for seen in pods_seen(pods, "uid-tiny")] == ["tiny-0", "tiny-1-r2"]


@pytest.mark.parametrize(
    "status, phase, began",
    [
        ({}, "Running", True),
        ({"phase": "Pending"}, "Starting", False),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "prepare", "state": {"running": {}}}]},
            "Starting",
            False,
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"name": "prepare", "state": {"running": {"startedAt": "x"}}}],
            },
            "Preparing",
            False,
        ),
        (
            {
                "phase": "Failed",
                "initContainerStatuses": [{"name": "prepare", "state": {"terminated": {"exitCode": 65}}}],
            },
            "PrepareFailed",
            False,
        ),
        ({"phase": "Failed"}, "Failed", True),
        ({"phase": "Succeeded"}, "Succeeded", True),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
            },
            "Unschedulable",
            False,
        ),
    ],
)
def test_what_a_pod_does_in_a_word(status: dict[str, Any], phase: str, began: bool) -> None:
    raw = pod(0, phase=status.get("phase", "Running"), **{k: v for k, v in status.items() if k != "phase"})
    (seen,) = pods_seen([raw], "uid-tiny")
    assert (seen.phase, seen.agent_began) == (phase, began)


def test_events_of_either_generation_come_in_order() -> None:
    old = {"reason": "Old", "count": 3, "lastTimestamp": "2026-01-01T00:00:01Z"}
    new = {"reason": "New", "eventTime": "2026-01-01T00:00:00.5Z", "series": {"count": 2}}
    assert [(e.reason, e.count) for e in events_seen([old, new, {}])] == [("", 1), ("New", 2), ("Old", 3)]


@pytest.mark.parametrize("live", [True, False], ids=["live", "plain"])
def test_the_views_of_local_runs_show_a_job_on_a_cluster(live: bool) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=live, highlight=False)
    view: LiveView | PlainView = LiveView(console) if live else PlainView(console)
    home = ClusterHome(job(SUCCEEDED))
    teller = Teller()
    view.begin(plan(job_of_manifest(), Machines(1, 0, 4)), home)
    for status in (
        WAITING,
        STARTING,
        running(1),
        running(5),
        {**WAITING, "restarts": {"total": 1}, "lastFailure": "died"},
    ):
        for told_event in teller.tell(job(status)):
            view.tell(told_event)
    view.end()
    view.finish(Outcome(0, "done"), home)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("tiny in namespace team", "5,000 tokens/s", "0:50 left", "died", "Done: ", "of step 10"):
        assert text in shown


def test_a_live_top_ends_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    pictures = iter([Text("first"), Text("second")])

    def draw() -> Text:
        try:
            return next(pictures)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(top, "REFRESH_SECONDS", 0)
    top._keep_drawing(console, draw)
    assert "second" in console.file.getvalue()  # type: ignore[attr-defined]
