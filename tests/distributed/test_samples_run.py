"""The small samples, run as a user would; and what a run leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ring_worker.contract import MetricsLine

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
PNG = b"\x89PNG"


def run(sample: str, output: Path, *options: str) -> str:
    command = [sys.executable, "-m", "ring_operator.cli", "run", str(SAMPLES / sample), "--output", str(output)]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "sample, rings",
    [("mixed-window.yaml", 1), ("data2-context2.yaml", 2), ("sinks-window.yaml", 1), ("ulysses2-ring2.yaml", 1)],
)
def test_a_small_sample_runs_and_learns(tmp_path: Path, sample: str, rings: int) -> None:
    run(sample, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["steps"] == 20
    assert report["loss_last"] < 0.8 * report["loss_first"]
    assert report["heldout_bits_per_byte"] < 6.0
    assert report["bigram_bits_per_byte"] < report["unigram_bits_per_byte"]
    assert [ring["index"] for ring in report["ring"]] == list(range(rings))
    for ring in report["ring"]:
        assert 0 < ring["efficiency"] < 2
        assert 0 <= ring["hidden_ratio"] <= 1
        assert 0 <= ring["exposed_fraction"] < 1
        assert ring["bytes"] > 0
        assert ring["probed_rows"] == (4 * 8 if sample == "sinks-window.yaml" else 0)
        assert ring["probe_mismatches"] == 0
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(PNG)


def test_the_quickstart_cut_short_leaves_everything_that_was_promised(tmp_path: Path) -> None:
    changes = ("training.steps=3", "training.schedule.warmupSteps=1", "evaluation.sampleTokens=20")
    options = [word for change in (*changes, "data.heldOut.fraction=0.01") for word in ("--set", change)]
    said = run("quickstart.yaml", tmp_path / "run", *options)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["steps"], report["tokens"], report["restarts"]) == (3, 3 * 4096, 0)
    assert report["world_size"] == 4
    assert len(report["sample"]) > 0
    assert report["sample"].strip()[:5] in said
    lines = [MetricsLine.from_json(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line.step for line in lines] == [1, 2, 3]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"manifest.yaml", "plan.json", "metrics.jsonl", "logs", "checkpoints", "report.json", "loss.png"} <= names
