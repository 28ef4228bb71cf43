"""The walk of a tile: every visible pair is in it, its full steps need no mask, and where bounds ascend it is tight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.attention.kernels.spans import Bounds, Ints, key_tiles, of_steps, query_tiles
from ring_worker.attention.schedule import Run, runs

Pairs = npt.NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn, ascending: bool) -> Bounds:
    rows, keys = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    ends = [draw(st.lists(st.integers(0, keys), min_size=rows, max_size=rows)) for _ in range(2)]
    lo, hi = np.minimum(*ends), np.maximum(*ends)
    if ascending:
        lo, hi = np.sort(lo), np.sort(hi)
    return Bounds.of(runs(lo, hi), rows, keys)


def pairs(bounds: Bounds) -> Pairs:
    """bool [rows, keys]: what is visible."""
    key = np.arange(len(bounds.seen))
    return (key >= bounds.lo[:, None]) & (key < bounds.hi[:, None])


def walked(table: Ints, shape: tuple[int, int], tile: int, step: int) -> tuple[Pairs, Pairs]:
    """bool [tiled side, walked side] for all steps and for the full ones. A full step may not reach over the edge."""
    every, whole = np.zeros(shape, bool), np.zeros(shape, bool)
    for index, start, before, full, steps in table.tolist():
        mine = slice(index * tile, (index + 1) * tile)
        assert 0 <= before <= before + full <= steps
        assert not every[mine].any(), "two entries for one tile"
        every[mine, start : start + steps * step] = True
        whole[mine, start + before * step : start + (before + full) * step] = True
        assert full == 0 or start + (before + full) * step <= shape[1]
    return every, whole


@given(masks(ascending=False), st.sampled_from([4, 16]), st.sampled_from([4, 8]))
def test_query_tiles_reach_all_that_is_visible(bounds: Bounds, block_q: int, block_k: int) -> None:
    visible = pairs(bounds)
    every, whole = walked(query_tiles(bounds, block_q, block_k), visible.shape, block_q, block_k)
    live = bounds.hi > bounds.lo
    assert not (visible & ~every).any()
    assert not (whole & ~visible)[live].any()


@given(masks(ascending=False), st.sampled_from([4, 16]), st.sampled_from([4, 8]))
def test_key_tiles_reach_all_that_is_visible(bounds: Bounds, block_k: int, block_q: int) -> None:
    visible = pairs(bounds)
    every, whole = walked(key_tiles(bounds, block_k, block_q), visible.T.shape, block_k, block_q)
    assert not (visible.T & ~every).any()
    assert not (whole & ~visible.T)[bounds.seen].any(), "rows in no run, too, are kept out of full steps"


@given(masks(ascending=True))
def test_where_bounds_ascend_no_walk_begins_or_ends_idle(bounds: Bounds) -> None:
    visible = pairs(bounds)
    for table, seen in ((query_tiles(bounds, 8, 4), visible), (key_tiles(bounds, 8, 4), visible.T)):
        for index, start, _, _, steps in table.tolist():
            mine = seen[index * 8 : index * 8 + 8].any(0)
            assert mine[start]
            assert mine[start + (steps - 1) * 4 :].any()


@pytest.mark.parametrize(
    "run, expected",
    [
        # tile, start, before, full, steps: the longest walk first
        (Run(0, 32, 0, 64, 0, 0), [[0, 0, 0, 4, 4], [1, 0, 0, 4, 4]]),  # a rectangle needs no mask
        (Run(0, 32, 5, 69, 0, 0), [[0, 5, 0, 4, 4], [1, 5, 0, 4, 4]]),  # nor does one that starts anywhere
        (Run(0, 32, 0, 1, 0, 1), [[1, 0, 0, 1, 2], [0, 0, 0, 0, 1]]),  # a triangle, only on its diagonal
        (Run(0, 32, 0, 40, 1, 1), [[0, 0, 1, 1, 4], [1, 16, 1, 1, 4]]),  # a band, on both edges
        (Run(20, 32, 0, 16, 0, 0), [[1, 0, 0, 1, 1]]),  # tiles without work are not there
    ],
)
def test_walks_by_hand(run: Run, expected: list[list[int]]) -> None:
    assert query_tiles(Bounds.of([run], 32, 80), 16, 16).tolist() == expected


def test_rows_behind_a_triangle_see_its_keys_in_full() -> None:
    bounds = Bounds.of([Run(0, 48, 0, 1, 0, 1)], 48, 48)
    assert key_tiles(bounds, 16, 16).tolist() == [[0, 0, 1, 2, 3], [1, 16, 1, 1, 2], [2, 32, 1, 0, 1]]


@given(masks(ascending=False))
def test_full_and_masked_steps_apart_are_all_steps(bounds: Bounds) -> None:
    table = query_tiles(bounds, 8, 4)
    full, masked = of_steps(table, "full"), of_steps(table, "masked")
    assert of_steps(table, "all").tolist() == table.tolist()
    assert (full[:, 3] > 0).all()
    assert (masked[:, 4] > masked[:, 3]).all()
    assert full[:, 3].sum() == table[:, 3].sum()
    assert (masked[:, 4] - masked[:, 3]).sum() == (table[:, 4] - table[:, 3]).sum()


def test_nothing_visible_is_nothing_to_launch() -> None:
    bounds = Bounds.of([], 40, 40)
    assert query_tiles(bounds, 16, 16).shape == (0, 5)
    assert key_tiles(bounds, 16, 16).shape == (0, 5)
