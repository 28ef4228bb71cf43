"""Whole runs by `ringctl run`, killed at any moment: the losses of a run that nobody disturbed, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from processes import alive, descendants, wait_until
from real_runs import INTERVAL, RINGCTL, STEPS, finish, losses, newest_checkpoint, report


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float, float]]:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    ran = subprocess.run([*RINGCTL, "run", str(manifest), "--output", str(output)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert report(output)["restarts"] == 0
    found = losses(output)
    assert [step for step, _, _ in found] == list(range(1, STEPS + 1))
    return found


def test_a_rank_that_is_killed_costs_an_epoch_and_not_the_run(tmp_path: Path, running: Any, undisturbed: Any) -> None:
    output = tmp_path / "run"
    process = running(output)
    wait_until(lambda: len(losses(output)) > 2 * INTERVAL, 120, "some steps")
    agents = {pid for pid, command in descendants(process.pid).items() if "ring_worker.agent" in command}
    ranks = [pid for pid, command in descendants(process.pid).items() if command.endswith("ring_worker.train")]
    os.kill(ranks[-1], signal.SIGKILL)
    finish(process)
    assert agents, "no agent was found"
    assert losses(output) == undisturbed
    assert report(output)["restarts"] == 1


def test_ctrl_c_saves_and_resume_goes_on(tmp_path: Path, running: Any, undisturbed: Any) -> None:
    output = tmp_path / "run"
    process = running(output)
    wait_until(lambda: len(losses(output)) > INTERVAL, 120, "some steps")
    process.send_signal(signal.SIGINT)
    finish(process, 143)
    stopped_at = losses(output)[-1][0]
    assert newest_checkpoint(output) == stopped_at
    finish(running(output), 1)  # the folder holds a run already
    finish(running(output, "--resume"))
    assert losses(output) == undisturbed
    assert report(output)["restarts"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_process_killed_at_any_moment(tmp_path: Path, running: Any, undisturbed: Any, seed: int) -> None:
    """ringctl, an agent, a rank, the preparation: one of them, again and again, then what is left runs to the end."""
    dice = random.Random(seed)
    output = tmp_path / "run"
    process = running(output)
    for _ in range(4):
        time.sleep(dice.uniform(0.1, 6.0))
        below = descendants(process.pid)
        if process.poll() is not None:
            break
        victim = dice.choice([process.pid, *below])
        logged = losses(output)[-1][0] if losses(output) else 0
        os.kill(victim, signal.SIGKILL)
        assert newest_checkpoint(output) >= logged - INTERVAL
        if victim == process.pid:
            wait_until(lambda below=below: not any(map(alive, below)), 20, "the end of all that ringctl started")
            process = running(output, *(["--resume"] if (output / "manifest.yaml").exists() else []))
    finish(process)
    assert losses(output) == undisturbed
    assert report(output)["steps"] == STEPS
