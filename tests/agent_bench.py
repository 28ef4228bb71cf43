"""One agent as a process of its own in a folder, with ranks that need no torch, and the hands of the operator."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
    Master,
    Member,
    Model,
    RankTable,
    RunConfig,
    Source,
    Training,
)

FAKE_RANK = [sys.executable, str(Path(__file__).parent / "fake_rank.py")]
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


def rank_table(epoch: int, uid: str = UID, port: int = 29500) -> RankTable:
    member = Member("job-0", "here", "127.0.0.1", first_rank=0, ranks=2, ring=0, position=0)
    return RankTable(epoch, uid, 2, Degrees(context=2), Master("127.0.0.1", port), f"token-{epoch}", (member,))


def until(look: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `look` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


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

    def start(self, rank: Sequence[str] = FAKE_RANK, **extra: str) -> None:
        environment = {
            **os.environ,
            "RING_CONFIG": str(self.folder / "run.json"),
            "RING_RANKS": str(self.folder / "ranks.json"),
            "RING_POD": "job-0",
            "RING_STATUS_ADDRESS": self.address,
            "FAKE_RANK_FOLDER": str(self.folder),
            **extra,
        }
        command = [sys.executable, "-m", "ring_worker.agent", "--", *rank]
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
        connection = http.client.HTTPConnection(self.address, timeout=15)
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
