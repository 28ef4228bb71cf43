"""A whole local run, with real agents and processes and a training that needs neither data nor torch."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from fake_training import SAVE_EVERY
from local_bench import LONG, STEPS, Bench
from ring_operator.local.events import Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.local.folder import RunFolder
from ring_worker.contract import ExitCode, RankTable


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_that_nothing_disturbs(bench: Bench) -> None:
    assert bench.run().exit_code == ExitCode.DONE
    assert bench.steps() == list(range(1, STEPS + 1))
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1]
    assert [e.line.step for e in bench.told(Stepped) if isinstance(e, Stepped)] == bench.steps()
    assert any(isinstance(e, Preparing) and e.progress and e.progress.files == 3 for e in bench.events)
    assert sorted(p.name for p in (bench.folder / "logs").iterdir()) == [
        "tiny-0.agent.log",
        "tiny-0.prepare.log",
        "tiny-1.agent.log",
        "tiny-1.prepare.log",
    ]


@pytest.mark.parametrize("rank, order", [("0", "8 kill"), ("1", "8 exit 70 a fault"), ("1", "8 kill-agent")])
def test_a_death_on_the_way_costs_an_epoch_and_no_step(bench: Bench, rank: str, order: str) -> None:
    bench.order(rank, order)
    assert bench.run().exit_code == ExitCode.DONE
    assert bench.steps() == list(range(1, STEPS + 1))
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1, 2]
    last_of_first = max(line.step for line in bench.lines() if line.epoch == 1)
    assert last_of_first % SAVE_EVERY == 0
    assert json.loads((bench.folder / "report.json").read_text()) == {"restarts": 1}


def test_what_cannot_be_mended_ends_the_job_with_its_own_code_and_words(bench: Bench) -> None:
    bench.order("1", "8 exit 65 the shards are torn")
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.CORRUPT_DATA
    assert outcome.failure is not None
    assert outcome.failure.error.endswith("the shards are torn")
    assert outcome.log.endswith("logs/tiny-1.agent.log")
    assert not bench.told(Restarting)


def test_a_fault_that_comes_again_ends_the_job_when_its_budget_is_spent(bench: Bench) -> None:
    bench.order("1", "8 exit 70 always the same")
    outcome = bench.run()
    assert (outcome.exit_code, len(bench.told(Restarting))) == (70, 1)
    assert "spec.recovery.budget.application: 1" in outcome.message


def test_a_failed_preparation_ends_the_job_before_any_rank_starts(bench: Bench) -> None:
    bench.order("prepare", "0 exit 65 bad.txt is not UTF-8")
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.CORRUPT_DATA
    assert "bad.txt" in (outcome.failure.error if outcome.failure else "")
    assert outcome.log.endswith(".prepare.log")
    assert not bench.told(Started)


def test_a_failure_is_told_in_the_words_of_its_own_start(bench: Bench) -> None:
    for words in ("the first fault", "another one"):
        bench.order("prepare", f"0 exit 65 {words}")
        failure = bench.run().failure
        assert failure is not None
        assert failure.error.splitlines() == [words]


def test_a_stop_saves_and_the_next_start_goes_on(bench: Bench) -> None:
    bench.total = LONG
    bench.on_step = lambda step: bench.supervisor.stop() if step == 12 else None
    assert bench.run().exit_code == ExitCode.TERMINATED
    stopped_at = bench.steps()[-1]
    assert 12 <= stopped_at < LONG
    assert RunFolder(bench.folder).last_checkpoint() == stopped_at
    bench.total = stopped_at + 5
    bench.on_step = lambda step: None
    assert bench.run().exit_code == ExitCode.DONE
    assert [(line.step, line.epoch) for line in bench.lines()] == [
        (step, 1 if step <= stopped_at else 2) for step in range(1, bench.total + 1)
    ]
    assert RankTable.from_json((bench.folder / "ranks.json").read_text()).epoch == 2


def test_a_second_stop_does_not_wait(bench: Bench) -> None:
    def stop(step: int) -> None:
        if step == 12:
            bench.supervisor.stop()
            threading.Timer(0.5, bench.supervisor.stop).start()

    bench.total = LONG
    bench.order("1", "3 deaf")
    bench.on_step = stop
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.TERMINATED
    assert "at once" in outcome.message
    assert len(bench.told(Stopping)) == 1


def test_restarts_are_counted_on_over_starts(bench: Bench) -> None:
    bench.total = LONG
    bench.order("1", "3 kill")
    bench.on_step = lambda step: bench.supervisor.stop() if step == 30 else None
    bench.run()
    bench.total = bench.steps()[-1] + 5
    bench.on_step = lambda step: None
    bench.order("1", f"{bench.total - 3} kill")
    assert bench.run().exit_code == ExitCode.DONE
    assert json.loads((bench.folder / "report.json").read_text()) == {"restarts": 2}
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1, 2, 3, 4]


def test_nothing_that_was_started_is_left(bench: Bench) -> None:
    bench.order("1", "8 exit 64 no")
    bench.run()
    marker = str(bench.base)
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if marker in words and int(process.name) != os.getpid():
            left.append(process.name)
    assert left == []
