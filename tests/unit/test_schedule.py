"""Layouts, masks and the schedule, by counting: each unmasked pair once, and only keys that somebody still needs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from ring_worker.attention.layout import KINDS, Layout, Range
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.schedule import Run, key_bounds, runs, schedule


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    length = draw(st.integers(1, 60))
    return Layout(draw(st.sampled_from(KINDS)), length, draw(st.integers(1, 9)), stripe=draw(st.integers(1, 7)))


@st.composite
def masks(draw: st.DrawFn, length: int) -> Mask:
    causal = draw(st.booleans())
    starts = draw(st.sets(st.integers(1, 60), max_size=3))
    return Mask(
        causal=causal,
        window=draw(st.none() | st.integers(1, 70)) if causal else None,
        chunk=draw(st.none() | st.integers(1, 70)),
        documents=(0, *sorted(s for s in starts if s < length)),
    )


@given(layouts())
def test_every_token_has_one_owner_and_positions_ascend(layout: Layout) -> None:
    owned = [layout.positions(rank) for rank in range(layout.ranks)]
    assert sorted(np.concatenate(owned).tolist()) == list(range(layout.length))
    assert all((np.diff(positions) > 0).all() for positions in owned)
    assert [layout.size(rank) for rank in range(layout.ranks)] == [len(positions) for positions in owned]


@pytest.mark.parametrize(
    "layout, rank, ranges",
    [
        (Layout("zigzag", 16, 2), 0, [(0, 4), (12, 16)]),
        (Layout("zigzag", 16, 2), 1, [(4, 8), (8, 12)]),
        (Layout("zigzag", 7, 2), 0, [(0, 1), (5, 7)]),
        (Layout("contiguous", 10, 4), 2, [(5, 7)]),
        (Layout("striped", 10, 2, stripe=3), 1, [(3, 6), (9, 10)]),
        (Layout("contiguous", 2, 4), 0, []),
    ],
)
def test_ranges(layout: Layout, rank: int, ranges: list[tuple[int, int]]) -> None:
    assert list(layout.ranges(rank)) == [Range(*r) for r in ranges]


@settings(max_examples=200)
@given(st.data())
def test_the_runs_are_exactly_the_mask(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    mask = data.draw(masks(layout.length))
    seen = oracle.visible(mask, layout.length).numpy()
    for rank in range(layout.ranks):
        for step in schedule(layout, mask, rank).steps:
            drawn = np.zeros((layout.size(rank), layout.size(step.source)), dtype=int)
            for run in step.runs:
                for i in range(run.rows):
                    drawn[run.start + i, run.lo + i * run.lo_step : run.hi + i * run.hi_step] += 1
            expected = seen[np.ix_(layout.positions(rank), layout.positions(step.source))]
            assert (drawn == expected).all()
            assert step.pairs == expected.sum()


@settings(max_examples=200)
@given(st.data())
def test_keys_arrive_before_they_are_read_and_no_key_travels_that_nobody_reads(data: st.DataObject) -> None:
    """Follow every source's keys down the ring: what is sent is received, holds what is read, and is needed."""
    layout = data.draw(layouts())
    mask = data.draw(masks(layout.length))
    plans = [schedule(layout, mask, rank) for rank in range(layout.ranks)]
    assert len({len(plan.steps) for plan in plans}) == 1
    for rank, plan in enumerate(plans):
        before = plans[(rank - 1) % layout.ranks]
        for s, step in enumerate(plan.steps):
            assert step.receive == before.steps[s].send
            assert step.source == (rank - s) % layout.ranks
            if s:
                arrived = plan.steps[s - 1].receive
                for run in step.runs:
                    assert arrived is not None
                    assert arrived.start <= run.keys.start <= run.keys.stop <= arrived.stop
                assert step.return_receive == before.steps[s - 1].return_send
        if len(plan.steps) > 1:
            last = len(plan.steps) - 1
            assert plan.home == plans[(rank + last) % layout.ranks].steps[last].return_send


@settings(max_examples=100)
@given(st.data())
def test_gradients_come_home_for_every_key_that_was_read_elsewhere(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    mask = data.draw(masks(layout.length))
    for source in range(layout.ranks):
        others = [key_bounds(layout, mask, rank, source) for rank in range(layout.ranks) if rank != source]
        read = [(int(lo[hi > lo].min()), int(hi[hi > lo].max())) for lo, hi in others if (hi > lo).any()]
        home = schedule(layout, mask, source).home
        assert home == (Range(min(lo for lo, _ in read), max(hi for _, hi in read)) if read else None)


@pytest.mark.parametrize(
    "layout, mask, steps",
    [
        (Layout("zigzag", 64, 4), CAUSAL, 4),
        (Layout("zigzag", 64, 4), FULL, 4),
        (Layout("zigzag", 64, 4), Mask(chunk=8), 1),  # chunks inside what a rank owns: nothing travels
        (Layout("contiguous", 64, 8), Mask(window=9), 2),  # a window no longer than a shard: one neighbour
        (Layout("contiguous", 64, 8), Mask(window=10), 3),
        (Layout("contiguous", 64, 4), Mask(documents=(0, 16, 32, 48)), 1),
        (Layout("contiguous", 64, 1), CAUSAL, 1),
    ],
)
def test_the_ring_stops_when_nobody_needs_more(layout: Layout, mask: Mask, steps: int) -> None:
    assert {len(schedule(layout, mask, rank).steps) for rank in range(layout.ranks)} == {steps}


def test_zigzag_gives_every_rank_the_same_work_in_every_step() -> None:
    layout = Layout("zigzag", 4096, 8)
    plans = [schedule(layout, CAUSAL, rank) for rank in range(8)]
    for s in range(1, 8):
        assert {plan.steps[s].pairs for plan in plans} == {512 * 256}
    assert len({plan.pairs for plan in plans}) == 1


def test_causal_zigzag_needs_one_run_a_step() -> None:
    for rank in range(4):
        assert [len(step.runs) for step in schedule(Layout("zigzag", 4096, 4), CAUSAL, rank).steps] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "lo, hi, expected",
    [
        ([0, 0, 0], [1, 2, 3], [Run(0, 3, 0, 1, 0, 1)]),
        ([0, 0, 0], [4, 4, 4], [Run(0, 3, 0, 4, 0, 0)]),
        ([0, 1, 2], [3, 4, 5], [Run(0, 3, 0, 3, 1, 1)]),
        ([0, 1, 2], [5, 5, 5], [Run(0, 3, 0, 5, 1, 0)]),
        ([0, 0, 0, 0], [0, 2, 2, 0], [Run(1, 3, 0, 2, 0, 0)]),
        ([0, 0, 0, 0], [2, 2, 9, 9], [Run(0, 2, 0, 2, 0, 0), Run(2, 4, 0, 9, 0, 0)]),
        ([0], [3], [Run(0, 1, 0, 3, 0, 0)]),
        ([], [], []),
    ],
)
def test_rows_become_runs(lo: list[int], hi: list[int], expected: list[Run]) -> None:
    assert list(runs(np.array(lo, dtype=np.int64), np.array(hi, dtype=np.int64))) == expected


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Mask(window=0), "window is 0 tokens"),
        (lambda: Mask(causal=False, window=4), "needs causal=True"),
        (lambda: Mask(documents=(1, 2)), "must ascend from 0"),
        (lambda: Mask(documents=(0, 4, 4)), "must ascend from 0"),
        (lambda: Layout("diagonal", 4, 2), "not one of zigzag, contiguous, striped"),
        (lambda: Layout("zigzag", 0, 2), "length 0"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_the_schedule_needs_no_torch() -> None:
    program = "import sys, ring_worker.attention.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@given(layouts(), st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_tokens_before_a_position_are_counted_as_if_one_by_one(layout: Layout, positions: list[int]) -> None:
    inside = np.minimum(np.array(positions), layout.length)
    counted = [[int((layout.positions(rank) < p).sum()) for p in inside] for rank in range(layout.ranks)]
    assert layout.counts_before(inside).tolist() == counted
