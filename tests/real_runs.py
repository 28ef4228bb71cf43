"""A tiny job, and runs of it by `ringctl run` as a user has them: real agents, real ranks, real text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import alive, descendants
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
