"""The agent of a real training: its status has rank 0's newest line, as in the journal, and its ranks' stacks."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

from agent_bench import until
from processes import descendants
from real_runs import finish, losses
from ring_worker.contract import AgentStatus, MetricsLine


def page(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=15)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def agent_address(pid: int) -> str:
    """Of the agent below `pid`; empty before there is one."""
    for child, command in descendants(pid).items():
        if " -m ring_worker.agent" in command and "tether" not in command:
            variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
            return next(v.partition("=")[2] for v in variables if v.startswith("RING_STATUS_ADDRESS="))
    return ""


def test_status_has_the_line_of_the_journal_and_stacks_are_those_of_the_training(
    manifest: Path,
    running: Any,
    tmp_path: Path,
) -> None:
    output = tmp_path / "run"
    process = running(output, "--set", "training.steps=4000", "--set", "training.logEverySteps=1")
    address = until(lambda: agent_address(process.pid), "an agent", seconds=120)

    def newest() -> MetricsLine | None:
        text = page(address, "/status")
        return AgentStatus.from_json(text).metrics if text else None

    line = until(newest, "a logged step", seconds=240)
    assert (line.step, line.loss, line.grad_norm) in losses(output)
    assert line.rings[0].efficiency is not None
    stacks = page(address, "/stacks")
    assert stacks.count("ring_worker/train.py") >= 2
    until(lambda: (newest() or line).step > line.step, "the training goes on", seconds=120)
    process.terminate()
    finish(process, code=143)
