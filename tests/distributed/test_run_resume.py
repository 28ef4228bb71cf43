"""Going on: from the newest checkpoint, from one that is named, and not with another text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from real_runs import INTERVAL, STEPS, finish, losses, report


@pytest.fixture
def done(tmp_path: Path, running: Any) -> tuple[Path, list[tuple[int, float, float]]]:
    """A finished run, and its losses."""
    output = tmp_path / "run"
    finish(running(output))
    return output, losses(output)


def checkpoint(output: Path, step: int) -> Path:
    """The folder of a step; one that was saved again has another name."""
    return max((output / "checkpoints").glob(f"step-{step:08d}*"))


def test_a_checkpoint_that_is_named_is_gone_on_from_in_the_same_folder_and_in_another(
    done: Any, running: Any, tmp_path: Path
) -> None:
    output, before = done
    older = checkpoint(output, STEPS - INTERVAL)
    said = finish(running(output, "--resume", "--set", f"checkpoint.resume={older}"))
    assert f"step {STEPS - INTERVAL + 1}/" in said
    assert f"step {STEPS - INTERVAL}/" not in said
    assert losses(output) == before
    assert report(output)["restarts"] == 0

    other = tmp_path / "other"
    finish(
        running(
            other, "--set", f"checkpoint.resume={checkpoint(output, STEPS)}", "--set", f"training.steps={STEPS + 2}"
        )
    )
    assert [step for step, _, _ in losses(other)] == [STEPS + 1, STEPS + 2]


def test_a_finished_checkpoint_is_no_start(done: Any, running: Any, tmp_path: Path) -> None:
    output, _ = done
    said = finish(running(tmp_path / "other", "--set", f"checkpoint.resume={checkpoint(output, STEPS)}"), 64)
    assert f"is of step {STEPS}, but training.steps is {STEPS}" in said
    assert "Traceback" not in said


def test_a_run_does_not_go_on_with_another_text(done: Any, running: Any, manifest: Path) -> None:
    output, _ = done
    added = manifest.parent / "text" / "added.txt"
    added.write_text("one document more, and the positions in the text mean others. " * 9)
    try:
        said = finish(running(output, "--resume", "--set", f"training.steps={STEPS + 2}"), 64)
    finally:
        added.unlink()
    assert "trained on another text" in said


def test_a_finished_run_whose_journal_is_gone_is_told_so(done: Any, running: Any) -> None:
    output, _ = done
    (output / "metrics.jsonl").unlink()
    said = finish(running(output, "--resume"), 64)
    assert "its metrics.jsonl is gone" in said
    assert "Traceback" not in said
