"""Whole runs by `ringctl run`, killed at any moment: the losses of a run that nobody disturbed, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import alive, descendants, wait_until
from ring_worker.contract import MetricsLine

STEPS, INTERVAL = 24, 4
RINGCTL = [sys.executable, "-m", "ring_operator.cli"]
FINISH_SECONDS = 240

MANIFEST = """
apiVersion: ringtraining.dev/v1alpha1
kind: RingTrainingJob
metadata: {{name: killed}}
spec:
  model:
    architecture: {{layers: 2, hidden: 32, heads: 4, kvHeads: 2, feedForward: 64}}
    attention: {{pattern: [full, chunk], chunk: 64}}
  context: {{length: 512}}
  parallelism: {{data: 1, context: 2}}
  workers: {{gpusPerNode: 0, processesPerNode: 2}}
  data: {{source: {{path: {text}}}, packing: concatenate, heldOut: {{fraction: 0.2}}}}
  training: {{steps: {steps}, precision: fp32, optimizer: {{lr: 3.0e-3}}, schedule: {{warmupSteps: 5}}}}
  checkpoint: {{everySteps: {interval}, keep: 2}}
  evaluation: {{everySteps: 0}}
  recovery: {{budget: {{application: 50, infrastructure: 50, noProgress: 50}}}}
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    text = folder / "text"
    text.mkdir()
    for i in range(60):
        (text / f"{i}.txt").write_text(f"{i} " + "the ring turns, the keys travel, the queries stay. " * (5 + i % 9))
    path = folder / "job.yaml"
    path.write_text(MANIFEST.format(text=text, steps=STEPS, interval=INTERVAL))
    return path


@pytest.fixture
def running(manifest: Path) -> Iterator[Any]:
    """Start `ringctl run`; whatever is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(output: Path, *options: str) -> subprocess.Popen[str]:
        command = [*RINGCTL, "run", str(manifest), "--output", str(output), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        left = descendants(process.pid)
        for pid in (process.pid, *left):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def losses(output: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of each whole line of the journal."""
    path = output / "metrics.jsonl"
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    lines = [MetricsLine.from_json(line.decode()) for line in whole]
    return [(line.step, line.loss, line.grad_norm) for line in lines]


def newest_checkpoint(output: Path) -> int:
    steps = [json.loads(marker.read_text())["step"] for marker in output.glob("checkpoints/*/COMPLETE")]
    return max(steps, default=0)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=FINISH_SECONDS)
    assert process.returncode == code, said
    return said


def report(output: Path) -> Any:
    return json.loads((output / "report.json").read_text())


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
