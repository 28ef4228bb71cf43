"""The reconcile of a cluster, against a cluster in memory: sentences about what becomes of a job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_manifests import STORAGE, job
from pretend_cluster import PretendCluster
from ring_operator.status.conditions import is_true
from ring_operator.status.document import JobStatus
from ring_worker.contract import AgentState, ExitCode

BROKEN = AgentState.BROKEN.value


def cluster(nodes: int = 4, **changes: Any) -> PretendCluster:
    base = {"workers.nodes": nodes, "workers.processesPerNode": 1, "workers.volumes": [STORAGE]}
    return PretendCluster(job({**base, **changes}))


def running(nodes: int = 4, **changes: Any) -> PretendCluster:
    there = cluster(nodes, **changes)
    there.settle()
    assert there.status.state == "Running", there.status
    return there


def break_rank(there: PretendCluster, name: str, code: int = -9) -> None:
    there.report(name, state=BROKEN, failed_rank=0, exit_code=code, error="what it said last")


def reasons(there: PretendCluster) -> list[str]:
    return [said.reason for said in there.told]


def test_a_job_gets_its_children_its_pods_and_then_its_rank_table() -> None:
    there = cluster()
    first = there.look()
    kinds = [type(act).__name__ for act in first.acts]
    assert kinds.index("Apply") < kinds.index("Create")  # a pod mounts what must be there before it
    assert sorted(there.pods) == ["tiny-0", "tiny-1", "tiny-2", "tiny-3"]
    assert there.table is None
    there.settle()
    assert there.table is not None
    assert [m.pod for m in there.table.members] == ["tiny-0", "tiny-1", "tiny-2", "tiny-3"]
    assert {m.node for m in there.table.members} == {pod.node for pod in there.facts()}
    assert {pod.epoch for pod in there.facts()} == {1}
    assert (there.status.state, there.status.rings_ready, there.status.epoch) == ("Running", "1/1", 1)
    assert there.status.rings[0].nodes == tuple(m.node for m in there.table.members)


def test_a_job_that_runs_asks_for_nothing() -> None:
    there = running()
    outcome = there.look()
    assert outcome.acts == ()
    assert outcome.status.model_copy(update={"progress": None}) == there.status.model_copy(update={"progress": None})


def test_a_dead_rank_starts_all_ranks_again_in_the_same_pods() -> None:
    there = running()
    pods = {pod.uid for pod in there.facts()}
    break_rank(there, "tiny-2", 70)
    there.settle()
    assert {pod.uid for pod in there.facts()} == pods
    assert there.status.epoch == 2
    assert there.status.state == "Running"
    assert (there.status.restarts.application, there.status.restarts.total) == (1, 1)
    assert "rank 0 in tiny-2 ended with exit code 70" in there.status.last_failure


def test_a_pod_that_is_taken_away_is_replaced_under_another_name() -> None:
    there = running()
    there.remove("tiny-1")
    there.settle()
    assert sorted(there.pods) == ["tiny-0", "tiny-1-r1", "tiny-2", "tiny-3"]
    assert there.status.state == "Running"
    assert there.status.restarts.infrastructure == 1
    assert there.table is not None
    assert there.table.members[1].pod == "tiny-1-r1"


def test_a_lost_node_is_left_at_once_and_its_pod_is_not_waited_for() -> None:
    there = running()
    [lost] = there.lose("node-2")
    there.settle(looks=20)
    assert lost not in there.pods
    assert there.status.state == "Running"
    assert "node node-2 is not ready" in there.status.last_failure


def test_a_node_that_does_not_report_does_not_stop_ranks_that_work() -> None:
    there = running()
    there.unready.add("node-2")
    there.settle(looks=20)
    assert there.status.epoch == 1
    assert is_true(there.status, "Degraded")


def test_a_node_that_fails_twice_is_avoided() -> None:
    there = running()
    bad = next(pod.node for pod in there.facts() if pod.index == 2)
    for _ in range(2):
        name = next(pod.name for pod in there.facts() if pod.index == 2)
        break_rank(there, name)
        there.settle()
    assert [entry.node for entry in there.status.excluded_nodes] == [bad]
    assert bad not in {pod.node for pod in there.facts()}
    assert there.status.state == "Running"
    assert "NodeExcluded" in reasons(there)
    there.now += 3601
    there.remove("tiny-0")
    there.settle()
    assert there.status.excluded_nodes == ()


def test_errors_of_the_program_are_not_held_against_a_node() -> None:
    there = running(**{"recovery.budget.application": 9, "recovery.budget.noProgress": 9})
    for _ in range(4):
        break_rank(there, "tiny-2", 70)
        there.settle()
    assert there.status.excluded_nodes == there.status.node_failures == ()


@pytest.mark.parametrize("code", [ExitCode.INVALID_CONFIG, ExitCode.CORRUPT_DATA, ExitCode.NO_RESTART])
def test_what_would_fail_again_is_not_tried_again(code: int) -> None:
    there = running()
    break_rank(there, "tiny-2", code)
    there.settle()
    assert there.status.state == "Failed"
    assert there.pods == {}
    assert there.status.restarts.total == 0
    assert there.status.completion_time is not None


def test_restarts_without_a_newer_checkpoint_end_the_job() -> None:
    there = running(**{"recovery.excludeNodeAfter": 0})
    for _ in range(4):
        break_rank(there, "tiny-0", -11)
        there.settle(looks=6)
    assert there.status.state == "Failed"
    failed = next(c for c in there.status.conditions if c.type == "Failed")
    assert failed.reason == "NoProgress"
    assert "spec.recovery.budget.noProgress: 3" in failed.message


def test_a_job_is_done_when_every_pod_is() -> None:
    there = running()
    for name in there.pods:
        there.end(name, 0)
    there.settle()
    assert there.status.state == "Succeeded"
    assert len(there.pods) == 4  # for their logs
    assert there.status.progress is not None
    assert there.status.progress.step == there.job.spec.training.steps
    assert there.look().acts == ()


def test_a_pod_that_ends_well_before_the_others_fail_takes_part_again() -> None:
    there = running()
    there.end("tiny-3", 0)
    there.settle(looks=3)
    assert there.status.state == "Running"
    break_rank(there, "tiny-0", 75)
    there.settle()
    assert "tiny-3-r1" in there.pods
    assert there.status.state == "Running"


def test_out_of_memory_counts_as_an_error_of_the_program() -> None:
    there = running()
    there.end("tiny-0", 137)
    there.pods["tiny-0"]["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    there.settle()
    assert there.status.restarts.application == 1
    assert "OOMKilled" in there.status.last_failure


def test_a_preempted_pod_counts_against_the_infrastructure() -> None:
    there = running()
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "bigger"}
    there.end("tiny-0", 1, conditions=[disrupted])
    there.settle()
    assert there.status.restarts.infrastructure == 1
    assert "PreemptionByScheduler" in there.status.last_failure


def test_a_hang_is_asked_about_before_it_is_ended() -> None:
    there = running()
    for name in there.pods:
        there.report(name, step=4, progress_age_seconds=601.0)
    outcome = there.look()
    kinds = [type(act).__name__ for act in outcome.acts]
    assert kinds[0] == "CollectStacks"
    assert there.stacks[0].pods == ("tiny-0", "tiny-1", "tiny-2", "tiny-3")
    there.settle()
    assert there.status.epoch == 2


def test_suspend_gives_the_nodes_back_and_resume_goes_on_with_the_next_epoch() -> None:
    there = running()
    there.report("tiny-0", checkpoint_step=7)
    there.look()
    work = there.job
    there.job = work.model_copy(update={"spec": work.spec.model_copy(update={"suspend": True})})
    there.look()
    assert there.status.state == "Suspending"
    there.settle()
    assert (there.status.state, there.pods) == ("Suspended", {})
    assert there.status.restarts.total == 0
    there.job = work
    there.settle()
    assert (there.status.state, there.status.epoch) == ("Running", 2)
    assert not is_true(there.status, "Suspended")
    assert there.status.progress is not None
    assert there.status.progress.last_checkpoint_step == 7


def test_a_namesake_on_its_way_out_is_waited_for() -> None:
    there = running(1)
    raw = there.pods["tiny-0"]
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    there.status = there.status.model_copy(update={"epoch": 2})
    kinds = [type(act).__name__ for act in there.look().acts]
    assert "Create" not in kinds


def test_the_deadline_ends_the_job() -> None:
    there = running(activeDeadlineSeconds=100)
    there.now += 101
    there.settle()
    assert there.status.state == "Failed"
    assert reasons(there)[-1] == "Failed"
    assert "activeDeadlineSeconds: 100" in there.told[-1].message
    assert there.pods == {}


def test_a_job_is_deleted_some_time_after_its_end() -> None:
    there = running(1, ttlSecondsAfterFinished=50)
    there.end("tiny-0", 0)
    there.settle(looks=3)
    assert not there.deleted
    there.now += 50
    there.look()
    assert there.deleted


def test_a_restart_that_a_person_asks_for_counts_against_nothing() -> None:
    there = running()
    there.restart = "2026-11-25T00:00:00Z"
    there.settle()
    assert (there.status.epoch, there.status.restarts.total, there.status.state) == (2, 0, "Running")
    there.settle()
    assert there.status.epoch == 2  # once


def test_a_failed_job_can_be_started_anew() -> None:
    there = running()
    break_rank(there, "tiny-0", ExitCode.NO_RESTART)
    there.settle()
    assert there.status.state == "Failed"
    there.restart = "again"
    there.settle()
    assert there.status.state == "Running"
    assert there.status.epoch == 2
    assert not is_true(there.status, "Failed")


def test_a_job_that_succeeded_is_not_started_again() -> None:
    there = running(1)
    there.end("tiny-0", 0)
    there.settle()
    there.restart = "again"
    there.settle()
    assert there.status.state == "Succeeded"
    assert "RestartIgnored" in reasons(there)


def test_what_keeps_pods_from_starting_is_told() -> None:
    there = cluster()
    there.look()
    for raw in there.pods.values():
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        raw["status"] = {"phase": "Pending", "conditions": [condition]}
    there.look()
    placed = next(c for c in there.status.conditions if c.type == "Placed")
    assert "0 of 4 pods are on nodes" in placed.message
    assert placed.message.count("Insufficient nvidia.com/gpu") == 1


def test_a_lost_status_does_not_bring_an_old_epoch_back() -> None:
    there = running()
    break_rank(there, "tiny-0")
    there.settle()
    there.status = JobStatus()
    there.settle()
    assert there.status.epoch == 2
    break_rank(there, "tiny-1")
    there.settle()
    assert there.status.epoch == 3


def test_a_lost_rank_table_is_followed_by_a_newer_epoch() -> None:
    there = running()
    there.table = None
    there.settle()
    assert there.table is not None
    assert (there.table.epoch, there.status.state) == (2, "Running")


def test_a_plan_with_fewer_nodes_sends_the_others_away() -> None:
    there = running()
    work = there.job
    there.job = work.model_copy(update={"spec": work.spec.model_copy(update={"suspend": True})})
    there.settle()
    small = job({"workers.nodes": 2, "workers.processesPerNode": 1, "workers.volumes": [STORAGE]})
    there.job = small
    there.settle()
    assert sorted(there.pods) == ["tiny-0", "tiny-1"]
    assert there.status.state == "Running"


def test_a_disruption_budget_that_is_no_longer_asked_for_goes() -> None:
    there = running(**{"workers.disruptionBudget": True})
    assert ("PodDisruptionBudget", "tiny") in there.children
    there.job = cluster().job
    there.settle()
    assert ("PodDisruptionBudget", "tiny") not in there.children
    assert len(there.children) == 3


FAULTS = st.sampled_from(["rank", "program", "remove", "lose", "end", "restart", "crash", "nothing"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(FAULTS, st.integers(0, 3), st.integers(0, 6)), max_size=8), st.booleans())
def test_whatever_breaks_a_job_that_makes_progress_runs_again(faults: list[tuple[str, int, int]], finish: bool) -> None:
    """No epoch twice, one pod a place, every member of the table alive; budgets are large enough here."""
    there = cluster(**{"recovery.budget": {"application": 99, "infrastructure": 99, "noProgress": 99}})
    for fault, index, looks in faults:
        pods = [pod for pod in there.facts() if pod.index == index and pod.agent_started and not pod.ended]
        if fault == "crash":
            there.crash_after = looks
        elif fault == "restart":
            there.restart = f"request-{index}-{looks}"
        elif pods:
            pod = pods[0]
            match fault:
                case "rank" | "program":
                    break_rank(there, pod.name, -9 if fault == "rank" else 70)
                case "remove":
                    there.remove(pod.name)
                case "lose" if len(there.unready) < 20:
                    there.lose(pod.node)
                case "end":
                    there.end(pod.name, 1)
        there.settle(looks)
    there.crash_after = None
    there.settle(40)
    assert there.status.state == "Running", there.status
    assert there.table is not None
    assert sorted(pod.index for pod in there.facts()) == [0, 1, 2, 3]
    assert {m.pod for m in there.table.members} == set(there.pods)
    assert all(agent.epoch == there.table.epoch for agent in there.agents.values())
    assert [t.epoch for t in there.tables] == sorted({t.epoch for t in there.tables})
    if finish:
        for name in list(there.pods):
            there.end(name, 0)
        there.settle()
        assert there.status.state == "Succeeded"
