"""Every configuration of the table, compiled ahead of time for GPUs that are not there: a minute or two, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_audit import Configuration, configurations

TESTS = Path(__file__).parents[1]
SHARED_BYTES = {"sm_80": 99 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
MATRIX = {"sm_80": "HMMA", "gfx942": "v_mfma"}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """The audit of each configuration, by name; two processes, outside the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(TESTS)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "kernel_audit", str(first), "2"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in range(2)
    ]
    try:
        lines = [line for process in processes for line in process.communicate(timeout=550)[0].splitlines()]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    return {line["configuration"]: line for line in map(json.loads, lines)}


@pytest.mark.parametrize("configuration", configurations(), ids=str)
def test_it_compiles_without_spills_in_the_memory_there_is(configuration: Configuration, found: Any) -> None:
    it = found[str(configuration)]
    assert (it["spills"], it["local"]) == (0, 0), it
    assert it["shared"] <= SHARED_BYTES[configuration.target], it
    assert it["matrix"], it


@pytest.mark.parametrize("head_size", [16, 32, 64, 128, 256])
def test_hopper_computes_the_forward_pass_with_its_own_matrix_instruction(head_size: int, found: Any) -> None:
    assert found[f"forward-sm_90-{head_size}"]["matrix"]["HGMMA"] > 0


@pytest.mark.parametrize("target", MATRIX)
@pytest.mark.parametrize("head_size", [16, 32, 64, 128, 256])
def test_the_others_use_theirs(target: str, head_size: int, found: Any) -> None:
    assert all(
        found[f"{kernel}-{target}-{head_size}"]["matrix"][MATRIX[target]] for kernel in ("forward", "dq", "dkdv")
    )
