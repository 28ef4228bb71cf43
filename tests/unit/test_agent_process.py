"""The agent as a process of its own, with ranks that need no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ring_worker.contract import (
    AgentState,
    AgentStatus,
    Checkpoint,
    Context,
    Data,
    Degrees,
    Evaluation,
    ExitCode,
    Master,
    Member,
    Model,
    RankTable,
    RunConfig,
    Source,
    Training,
)

FAKE_RANK = Path(__file__).parents[1] / "fake_rank.py"
PATIENCE_SECONDS = 20.0
UID = "uid-1"
CONFIG = RunConfig(
    job="job",
    job_uid=UID,
    device="cpu",
    degrees=Degrees(context=2),
    model=Model(layers=1, hidden=8, heads=1, kv_heads=1, head_dim=8, feed_forward=8),
    context=Context(length=64),
    data=Data(source=Source(kind="builtin"), prepared="/nowhere"),
    training=Training(steps=1),
    checkpoint=Checkpoint(path="/nowhere"),
    evaluation=Evaluation(),
    output="/nowhere",
)


def rank_table(epoch: int, uid: str = UID) -> RankTable:
    member = Member("job-0", "here", "127.0.0.1", first_rank=0, ranks=2, ring=0, position=0)
    return RankTable(epoch, uid, 2, Degrees(context=2), Master("127.0.0.1", 29500), f"token-{epoch}", (member,))


def until(look: Callable[[], Any], what: str) -> Any:
    """What `look` gives once it is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}")


def lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


class Bench:
    """One agent in a folder, and the hands of the operator: the rank table and HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run.json").write_text(CONFIG.to_json())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.log = folder / "agent.log"
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self, **extra: str) -> None:
        environment = {
            **os.environ,
            "RING_CONFIG": str(self.folder / "run.json"),
            "RING_RANKS": str(self.folder / "ranks.json"),
            "RING_POD": "job-0",
            "RING_STATUS_ADDRESS": self.address,
            "FAKE_RANK_FOLDER": str(self.folder),
            **extra,
        }
        command = [sys.executable, "-m", "ring_worker.agent", "--", sys.executable, str(FAKE_RANK)]
        with self.log.open("wb") as log:
            self.agent = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def publish(self, table: RankTable) -> None:
        half = self.folder / "ranks.half"
        half.write_text(table.to_json())
        half.rename(self.folder / "ranks.json")

    def ranks(self, epoch: int) -> list[dict[str, Any]]:
        """What both ranks of an epoch wrote at their start."""
        files = [self.folder / f"{epoch}-{rank}.json" for rank in (0, 1)]
        until(lambda: all(f.exists() for f in files), f"two ranks of epoch {epoch}\n{self.log.read_text()}")
        return [json.loads(f.read_text()) for f in files]

    def order(self, epoch: int, rank: int, order: str) -> None:
        half = self.folder / "order.half"
        half.write_text(order)
        half.rename(self.folder / f"{epoch}-{rank}.order")

    def get(self, page: str) -> str:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", page)
            return connection.getresponse().read().decode()

    def status(self) -> AgentStatus | None:
        with contextlib.suppress(OSError):
            return AgentStatus.from_json(self.get("/status"))
        return None

    def until_state(self, state: AgentState, epoch: int) -> AgentStatus:
        def look() -> AgentStatus | None:
            status = self.status()
            return status if status and (status.state, status.epoch) == (state, epoch) else None

        found = until(look, f"{state} in epoch {epoch}\n{self.log.read_text()}")
        assert isinstance(found, AgentStatus)
        return found

    def wait(self) -> int:
        assert self.agent is not None
        return self.agent.wait(PATIENCE_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        assert self.agent is not None
        self.agent.send_signal(number)

    def close(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    try:
        yield bench
    finally:
        bench.close()


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


def test_a_new_epoch_ends_the_running_one(bench: Bench) -> None:
    bench.start(FAKE_RANK_DEAF="yes")
    bench.publish(rank_table(1))
    old = bench.ranks(1)
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
