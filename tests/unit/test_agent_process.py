"""The agent as a process of its own, with ranks that need no torch."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import pytest

from agent_bench import PATIENCE_SECONDS, UID, Bench, lives, rank_table, until
from agent_bench import bench as bench
from fake_rank import metrics_line
from ring_worker.contract import AgentState, ExitCode


def test_waits_for_a_table_then_runs_the_ranks_it_names(bench: Bench) -> None:
    bench.start()
    assert bench.until_state(AgentState.WAITING, 0).step == -1
    bench.publish(dataclasses.replace(rank_table(3), restarts=2))
    first, second = bench.ranks(3)
    told = {name: (first[name], second[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    assert told == {
        "RANK": ("0", "1"),
        "LOCAL_RANK": ("0", "1"),
        "WORLD_SIZE": ("2", "2"),
        "LOCAL_WORLD_SIZE": ("2", "2"),
    }
    assert [first[k] for k in ("MASTER_ADDR", "MASTER_PORT", "RING_EPOCH", "RING_RESTARTS", "RING_TOKEN")] == [
        "127.0.0.1",
        "29500",
        "3",
        "2",
        "token-3",
    ]
    assert bench.until_state(AgentState.RUNNING, 3).job_uid == UID


def test_steps_of_the_ranks_reach_status_and_metrics(bench: Bench) -> None:
    bench.start()
    bench.publish(rank_table(1))
    bench.ranks(1)
    bench.order(1, 0, "step 7")
    status = until(lambda: (s := bench.status()) and s.step == 7 and s, "step 7")
    assert status.progress_age_seconds < PATIENCE_SECONDS
    assert 'ring_training_tokens_total{job="job",pod="job-0",ring="0"} 100.0' in bench.get("/metrics")


def test_the_line_of_rank_0_reaches_status_until_the_next_epoch(bench: Bench) -> None:
    bench.start()
    bench.publish(rank_table(1))
    bench.ranks(1)
    bench.order(1, 0, "log 7")
    status = until(lambda: (s := bench.status()) and s.metrics and s, "a line")
    assert status.metrics == metrics_line(7, epoch=1)
    bench.publish(rank_table(2))
    bench.ranks(2)
    assert bench.until_state(AgentState.RUNNING, 2).metrics is None


@pytest.mark.parametrize("death", ["exit", "kill -9"])
def test_a_dead_rank_takes_its_pod_siblings_along_and_the_next_epoch_runs_them_all(bench: Bench, death: str) -> None:
    bench.start()
    bench.publish(rank_table(1))
    survivor, victim = bench.ranks(1)
    if death == "exit":
        bench.order(1, 1, "exit 70 out of ideas")
    else:
        os.kill(victim["pid"], signal.SIGKILL)
    status = bench.until_state(AgentState.BROKEN, 1)
    assert (status.failed_rank, status.exit_code) == (1, 70 if death == "exit" else -9)
    assert "out of ideas" in status.error or death == "kill -9"
    assert not lives(survivor["pid"])
    bench.publish(rank_table(2))
    bench.ranks(2)
    assert bench.until_state(AgentState.RUNNING, 2).exit_code is None


def test_a_new_epoch_ends_the_running_one_at_once_deaf_and_stopped_ranks_too(bench: Bench) -> None:
    bench.start(FAKE_RANK_DEAF="yes")
    bench.publish(rank_table(1))
    old = bench.ranks(1)
    os.kill(old[0]["pid"], signal.SIGSTOP)
    bench.publish(rank_table(2))
    bench.ranks(2)
    assert not any(lives(rank["pid"]) for rank in old)


@pytest.mark.parametrize(
    "text, said",
    [
        (rank_table(1).to_json(), "epoch 2 was run already"),
        (rank_table(9, uid="uid-of-a-namesake").to_json(), "of another job"),
        (rank_table(9).to_json()[:50], "not JSON"),
    ],
    ids=["stale", "foreign", "torn"],
)
def test_a_table_that_is_not_the_next_one_is_ignored_and_said_once(bench: Bench, text: str, said: str) -> None:
    bench.start()
    bench.publish(rank_table(2))
    ranks = bench.ranks(2)
    (bench.folder / "ranks.json").write_text(text)
    until(lambda: said in bench.log.read_text(), said)
    time.sleep(0.3)
    assert bench.log.read_text().count(said) == 1
    assert all(lives(rank["pid"]) for rank in ranks)
    bench.publish(rank_table(3))
    bench.ranks(3)


def test_a_pod_that_is_made_anew_ignores_the_table_it_finds(bench: Bench) -> None:
    bench.publish(rank_table(2))
    bench.start(RING_AFTER_EPOCH="2")
    until(lambda: "takes part after 2" in bench.log.read_text(), "what it says of the old table")
    assert bench.until_state(AgentState.WAITING, 0).step == -1
    bench.publish(rank_table(3))
    bench.ranks(3)


def test_all_ranks_done_is_the_agents_exit_0(bench: Bench) -> None:
    bench.start()
    bench.publish(rank_table(1))
    bench.ranks(1)
    for rank in (0, 1):
        bench.order(1, rank, "exit 0 bye")
    assert bench.wait() == 0
    assert "[rank 1] bye" in bench.log.read_text()


def test_sigterm_lets_the_ranks_save_and_exits_143(bench: Bench) -> None:
    bench.start()
    bench.publish(rank_table(1))
    ranks = bench.ranks(1)
    bench.signal(signal.SIGTERM)
    assert bench.wait() == ExitCode.TERMINATED
    assert not any(lives(rank["pid"]) for rank in ranks)


def test_sigterm_before_the_first_epoch_exits_143_at_once(bench: Bench) -> None:
    bench.start()
    bench.until_state(AgentState.WAITING, 0)
    bench.signal(signal.SIGTERM)
    assert bench.wait() == ExitCode.TERMINATED


def test_a_rank_that_fails_to_save_is_told_by_the_exit_code(bench: Bench) -> None:
    bench.start(FAKE_RANK_DEAF="yes")
    bench.publish(rank_table(1))
    bench.ranks(1)
    bench.signal(signal.SIGTERM)
    bench.until_state(AgentState.STOPPING, 1)
    bench.order(1, 0, "exit 65 disk is full")
    assert bench.wait() == 65


def test_a_rank_that_stops_unasked_is_a_failure(bench: Bench) -> None:
    bench.start()
    bench.publish(rank_table(1))
    first, _ = bench.ranks(1)
    os.kill(first["pid"], signal.SIGTERM)
    assert bench.until_state(AgentState.BROKEN, 1).exit_code == ExitCode.TERMINATED


def test_ranks_do_not_outlive_a_killed_agent_and_nothing_of_it_stays_on_the_disk(bench: Bench) -> None:
    scratch = bench.folder / "tmp"
    scratch.mkdir()
    bench.start(FAKE_RANK_DEAF="yes", TMPDIR=str(scratch))
    bench.publish(rank_table(1))
    ranks = bench.ranks(1)
    bench.signal(signal.SIGKILL)
    bench.wait()
    until(lambda: not any(lives(rank["pid"]) for rank in ranks), "the ranks die with their agent")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("RING_POD", "", "RING_POD"),
        ("RING_STATUS_ADDRESS", "nonsense", "nonsense"),
        ("RING_CONFIG", "/no/such/file", "/no/such/file"),
    ],
)
def test_a_faulty_environment_is_exit_64_in_one_line(bench: Bench, name: str, value: str, said: str) -> None:
    bench.start(**{name: value})
    assert bench.wait() == ExitCode.INVALID_CONFIG
    log = bench.log.read_text()
    assert said in log
    assert len(log.splitlines()) == 1
