"""`python -m ring_operator`, as far as it goes without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ring_operator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PATH": "", **environment})


@pytest.mark.parametrize("text", [None, "", "just text", "{not: [yaml", "clusters: 3\n"])
def test_a_kubeconfig_that_cannot_be_used_is_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_text(text)
    done = run("--worker-image", "worker:1", "--kubeconfig", str(file), HOME=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{file} is no usable kubeconfig" in done.stderr.strip().splitlines()[-1]


def test_a_missing_image_is_told() -> None:
    done = run()
    assert done.returncode == 2
    assert "--worker-image" in done.stderr
