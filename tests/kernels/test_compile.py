"""Configurations of the table, compiled ahead of time for GPUs that are not there: some minutes, once.

bf16 at every size, and those of fp16, fp32 and a soft cap that were nearest to spilling; `make audit-kernels` does all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.kernel_bound import CHIPS
from benchmarks.kernel_build import TARGETS, Build
from benchmarks.kernels import name_of, shipped

from ring_worker.attention.kernels.tile_table import KERNELS

ROOT = Path(__file__).parents[2]
SIZES = "16|32|64|80|96|128|192:128|192|256"
AT_RISK = r"(64|96|128)-bf16-softcap|128-fp16|(64|80|128|256)-fp32"
OURS = rf"^(forward|dq|dkdv)-\w+-(({SIZES})-bf16|{AT_RISK})(\+\w+)*$"
TUTORIALS = r"^tutorial-\w+-\w+-(64|128)-bf16"
OWN = {"sm_80": r"HMMA", "sm_90": r"HGMMA", "sm_100": r"UTC\w*MMA", "gfx942": r"v_mfma_\w+"}

audited = [build for build in shipped() if re.search(OURS, name_of(build))]
half = [build for build in audited if build.dtype == "bf16"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The audit of each build, by name; in processes outside the interpreter."""
    report = tmp_path_factory.mktemp("audit") / "kernels.json"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kernels", "--only", f"{OURS}|{TUTORIALS}"]
    subprocess.run([*command, "--json", report], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {line["name"]: line for line in json.loads(report.read_text())["results"]}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("build", audited, ids=str)
def test_it_compiles_without_spills_in_the_memory_there_is(build: Build, found: Any) -> None:
    it = found[str(build)]
    assert it["local_bytes"] == 0, it
    assert it["shared_bytes"] <= (99 * 1024 if build.target == "sm_80" else CHIPS[build.target].block_bytes), it
    assert it["resident_warps"] >= build.tile.warps, it


@pytest.mark.parametrize("build", half, ids=str)
def test_each_generation_computes_bf16_with_its_own_matrix_instructions(build: Build, found: Any) -> None:
    matrix = found[str(build)]["matrix"]
    assert matrix
    assert all(re.fullmatch(OWN[build.target], name) for name in matrix), matrix


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_inner_loop_is_no_fatter_than_the_tutorials(kernel: str, target: str, size: int, found: Any) -> None:
    name = f"{kernel}-{target}-{size}-bf16"
    ours = found.get(name) or found[f"{name}+full"]
    theirs = [found[f"tutorial-{kernel}-{target}-{size}-bf16-{warps}"] for warps in (4, 8)]
    sound = [it for it in theirs if not it["local_bytes"]] or theirs
    assert ours["others"] <= min(it["others"] for it in sound), (ours, theirs)
