"""Which tile is chosen, by a clock that is told what to say, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from ring_worker.attention.kernels.tile_table import DTYPES, HEAD_SIZES, KERNELS, ROWS, Shape, Tile, row_for, tile_for
from ring_worker.attention.kernels.triton_kernel import TritonKernel
from ring_worker.attention.kernels.tuning import Choices, Work, cache_file, candidates, fastest

ROW = Tile(128, 64, 8, 2)
WORK = Work("forward", Shape(128, 128), "bf16", "sm_90", capped=False)


@pytest.mark.parametrize(
    "times, chosen",
    [
        ({}, ROW),  # all the same
        ({replace(ROW, stages=3): 0.5}, replace(ROW, stages=3)),
        ({replace(ROW, stages=3): 0.99}, ROW),  # too little to leave what the audit has seen
        ({ROW: inf, replace(ROW, warps=4): 1.0}, replace(ROW, stages=3)),  # the row cannot run: the first that can
        (dict.fromkeys(candidates(ROW), inf), ROW),  # none can: the launch will say why
    ],
)
def test_the_fastest_is_chosen(times: dict[Tile, float], chosen: Tile) -> None:
    assert fastest(ROW, lambda tile: times.get(tile, 1.0)) == chosen


def test_candidates_are_the_row_and_distinct_neighbours_that_triton_can_compile() -> None:
    for row in (ROW, Tile(16, 16, 4, 1, "tf32x3")):
        found = candidates(row)
        assert found[0] == row
        assert len(set(found)) == len(found) > 3
        assert all(t.precision == row.precision and min(t.block_q, t.block_k) >= 16 and t.stages >= 1 for t in found)


def test_a_choice_is_made_once_and_remembered_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "tiles.json"
    asked: list[Tile] = []

    def timer() -> Callable[[Tile], float]:
        def milliseconds(tile: Tile) -> float:
            asked.append(tile)
            return 1.0 if tile.stages == 3 else 2.0

        return milliseconds

    other = replace(WORK, capped=True)
    first, second = Choices(path), Choices(path)
    for _ in range(2):
        assert first.tile(WORK, ROW, timer).stages == 3
    assert len(asked) == len(candidates(ROW))
    second.tile(other, ROW, timer)
    assert json.loads(path.read_text()).keys() == {str(WORK), str(other)}

    def never() -> Callable[[Tile], float]:
        raise AssertionError("asked again")

    assert Choices(path).tile(WORK, ROW, never).stages == 3
    assert [p.name for p in path.parent.iterdir()] == ["tiles.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"forward": {"block": 3}}'])
def test_a_file_that_cannot_be_read_counts_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    assert Choices(path).tile(WORK, ROW, lambda: lambda tile: 1.0) == ROW


def test_without_a_folder_to_write_to_the_choice_still_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Choices(tmp_path / "file" / "tiles.json").tile(WORK, ROW, lambda: lambda tile: 1.0) == ROW


def test_another_device_or_version_asks_again(tmp_path: Path) -> None:
    names = [cache_file(device, versions, tmp_path) for device in ("NVIDIA H100 80GB", "MI300X") for versions in "ab"]
    assert len(set(names)) == 4
    assert names[0].name.startswith("tiles-NVIDIA-H100-80GB-")
    assert names[0] == cache_file("NVIDIA H100 80GB", "a", tmp_path)


def test_no_clock_is_asked_without_a_gpu_or_when_told_not_to() -> None:
    import torch

    row = tile_for(WORK.kernel, WORK.shape, WORK.dtype, WORK.target)
    assert TritonKernel()._tile(WORK, torch.device("cpu")) == row
    assert TritonKernel(tune=False)._tile(WORK, torch.device("cuda")) == row


@pytest.mark.parametrize(
    "shape, row",
    [
        (Shape(16, 16), Shape(16, 16)),
        (Shape(20, 20), Shape(32, 32)),
        (Shape(72, 72), Shape(80, 80)),
        (Shape(64, 128), Shape(128, 128)),
        (Shape(192, 128), Shape(192, 128)),
        (Shape(128, 192), Shape(192, 192)),
        (Shape(200, 16), Shape(256, 256)),
    ],
)
def test_a_shape_runs_in_the_first_row_that_holds_it(shape: Shape, row: Shape) -> None:
    assert row_for(shape) == row


def test_every_shape_has_a_tile_everywhere() -> None:
    least, most = HEAD_SIZES
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        for shape in (*ROWS, Shape(least, most), Shape(most, least)):
            for kernel in KERNELS:
                assert all(tile_for(kernel, shape, dtype, target).warps in (4, 8) for dtype in DTYPES)
