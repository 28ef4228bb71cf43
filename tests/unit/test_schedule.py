"""Layouts and the schedule, by counting: each unmasked pair once, only what is read travels, every sum comes home."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from mask_cases import MASKS, inners, layouts, masks
from parcel_walk import Walk, plans_of
from ring_worker.attention.layout import KINDS, Layout, Range
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.needs import Asked, key_needs, query_needs, travelling
from ring_worker.attention.route import Route
from ring_worker.attention.schedule import Moving, Run, Step, runs

Bools = npt.NDArray[np.bool_]


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    layout = draw(layouts())
    return Asked(layout, draw(masks(layout.length)), early=draw(st.integers(0, 3)) == 0)


MOVING = st.sampled_from(["keys", "queries"])


def seen_by(what: Asked) -> Bools:
    """bool [S, S]: the mask, without the rows whose attention is not asked for."""
    seen = oracle.visible(what.mask, what.layout.length).numpy()
    if what.early:
        for rank in range(what.layout.ranks):
            seen[what.layout.positions(rank)[what.layout.early(rank) :]] = False
    return seen


def read_by(what: Asked, rank: int, moving: Moving) -> Bools:
    """bool [S]: the tokens of all ranks that take part in what this rank computes."""
    own, seen = what.layout.positions(rank), seen_by(what)
    return seen[own].any(0) if moving == "keys" else seen[:, own].any(1)


@given(layouts())
def test_every_token_has_one_owner_and_positions_ascend(layout: Layout) -> None:
    owned = [layout.positions(rank) for rank in range(layout.ranks)]
    assert sorted(np.concatenate(owned).tolist()) == list(range(layout.length))
    assert all((np.diff(positions) > 0).all() for positions in owned)
    assert [layout.size(rank) for rank in range(layout.ranks)] == [len(positions) for positions in owned]
    for rank, positions in enumerate(owned):
        assert (layout.owners(positions) == rank).all()


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


@given(layouts(), st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_tokens_before_a_position_are_counted_as_if_one_by_one(layout: Layout, positions: list[int]) -> None:
    inside = np.minimum(np.array(positions), layout.length)
    counted = [[int((layout.positions(rank) < p).sum()) for p in inside] for rank in range(layout.ranks)]
    assert layout.counts_before(inside).tolist() == counted


@st.composite
def routes(draw: st.DrawFn) -> Route:
    layout = draw(layouts())
    return Route(layout.ranks, draw(inners(layout)))


@given(routes())
def test_a_rank_meets_every_rank_once_and_itself_first(route: Route) -> None:
    for rank in range(route.ranks):
        met = [route.source(rank, step) for step in range(route.ranks)]
        assert met[0] == rank
        assert sorted(met) == list(range(route.ranks))
        assert [route.visitor(source, step) for step, source in enumerate(met)] == [rank] * route.ranks
        for step in range(1, route.ranks):
            carrier = route.across(rank) if route.starts(step) else route.before(rank)
            assert route.source(carrier, step - (route.inner if route.starts(step) else 1)) == met[step]


def test_an_inner_ring_that_does_not_divide_the_ranks_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="inner rings of 4 ranks do not divide 6 ranks"):
        Route(6, 4)


def drawn_pairs(step: Step, rows: int, keys: int) -> npt.NDArray[np.int64]:
    """[rows, keys]: in how many runs each pair is."""
    drawn = np.zeros((rows, keys), dtype=np.int64)
    for run in (run for term in step.terms for run in term):
        for i in range(run.rows):
            drawn[run.start + i, run.lo + i * run.lo_step : run.hi + i * run.hi_step] += 1
    return drawn


@settings(max_examples=50)
@given(st.data())
def test_the_runs_are_exactly_the_mask(data: st.DataObject) -> None:
    what, moving = data.draw(asked()), data.draw(MOVING)
    seen, layout = seen_by(what), what.layout
    for plan in plans_of(what, data.draw(inners(layout)), moving):
        met = []
        for step in plan.steps:
            queries, keys = (plan.rank, step.source) if moving == "keys" else (step.source, plan.rank)
            expected = seen[np.ix_(layout.positions(queries), layout.positions(keys))]
            assert (drawn_pairs(step, *expected.shape) == expected).all()
            assert step.pairs == expected.sum()
            met.append(step.source)
        own = layout.positions(plan.rank)
        assert plan.pairs == (seen[own] if moving == "keys" else seen[:, own]).sum(), met


@settings(max_examples=80)
@given(st.data())
def test_everything_read_arrives_once_and_in_time_and_every_sum_comes_home_once(data: st.DataObject) -> None:
    """Bytes are then the least possible: each token once to each other rank that reads it, and its sum back."""
    what, moving = data.draw(asked()), data.draw(MOVING)
    layout = what.layout
    plans = plans_of(what, data.draw(inners(layout)), moving)
    walk = Walk(plans, [layout.size(rank) for rank in range(layout.ranks)])
    walk.run()
    reads = np.array([read_by(what, rank, moving) for rank in range(layout.ranks)])
    for owner in range(layout.ranks):
        assert (walk.own[owner] == reads[:, layout.positions(owner)]).all()
    least = sum(int(reads[r].sum() - reads[r, layout.positions(r)].sum()) for r in range(layout.ranks))
    assert sum(plan.sent for plan in plans) == sum(plan.returned for plan in plans) == least
    assert least == travelling((key_needs if moving == "keys" else query_needs)(what))


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
    assert {len(plan.steps) for plan in plans_of(Asked(layout, mask), layout.ranks)} == {steps}


def test_zigzag_gives_every_rank_the_same_work_in_every_step() -> None:
    plans = plans_of(Asked(Layout("zigzag", 4096, 8), CAUSAL), 8)
    for s in range(1, 8):
        assert {plan.steps[s].pairs for plan in plans} == {512 * 256}
    assert len({plan.pairs for plan in plans}) == 1


def test_causal_zigzag_needs_one_run_a_step() -> None:
    for plan in plans_of(Asked(Layout("zigzag", 4096, 4), CAUSAL), 4):
        assert [[len(term) for term in step.terms] for step in plan.steps] == [[1]] * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_early_asks_for_no_more_than_the_whole(mask: Mask, kind: str) -> None:
    layout = Layout(kind, 61, 4, stripe=5)
    for part, whole in zip(*(key_needs(Asked(layout, mask, early)) for early in (True, False)), strict=True):
        for source in range(4):
            inside = {t for a, b in whole.of(source) for t in range(a, b)}
            assert {t for a, b in part.of(source) for t in range(a, b)} <= inside


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
        ([0, 1, 1], [1, 2, 3], [Run(0, 1, 0, 1, 0, 0), Run(1, 3, 1, 2, 0, 1)]),  # one token of another document
        ([], [], []),
    ],
)
def test_rows_become_runs(lo: list[int], hi: list[int], expected: list[Run]) -> None:
    assert list(runs(np.array(lo, dtype=np.int64), np.array(hi, dtype=np.int64))) == expected


def test_the_schedule_needs_no_torch() -> None:
    program = "import sys, ring_worker.attention.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
