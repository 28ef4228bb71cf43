"""The Triton kernels against the fp64 twin: same arguments, same state, outputs and gradients, on poisoned buffers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

import triton_cases as cases
from ring_worker.attention.kernels import triton_kernel
from ring_worker.attention.kernels.interface import Block, Carry, Gradients
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.kernels.tile_table import Tile
from ring_worker.attention.kernels.triton_kernel import TritonKernel
from ring_worker.attention.kernels.triton_launch import aligned, rows_of
from ring_worker.attention.kernels.triton_tiles import Rows, dims_of, rows_at, tile_at
from ring_worker.attention.schedule import Run, runs
from triton_cases import Case

MASKS = {
    "rectangle": (Run(0, 100, 0, 110, 0, 0),),
    "rectangle inside": (Run(37, 80, 13, 97, 0, 0),),
    "one pair": (Run(41, 42, 70, 71, 0, 0),),
    "triangle": (Run(0, 100, 0, 1, 0, 1),),
    "triangle behind a rectangle": (Run(5, 95, 0, 20, 0, 1),),
    "band": (Run(0, 100, 0, 9, 1, 1),),
    "triangle, then band": (Run(0, 40, 0, 1, 0, 1), Run(40, 100, 1, 41, 1, 1)),
    "closing": (Run(0, 60, 0, 60, 1, 0),),
    "gaps in rows and keys": (Run(3, 10, 0, 7, 0, 0), Run(12, 50, 20, 25, 0, 1), Run(90, 99, 100, 101, 0, 1)),
    "documents": (Run(0, 31, 0, 1, 0, 1), Run(31, 64, 31, 32, 0, 1), Run(64, 100, 64, 65, 0, 1)),
    "descending": (Run(0, 50, 60, 100, 0, 0), Run(50, 100, 0, 30, 0, 0)),
    "nothing": (),
}
WIDE = Case(MASKS["triangle"], rows=150, keys=150)
SHAPES = {
    "head size 16, bf16": replace(WIDE, dtype=torch.bfloat16),
    "head size 20": replace(WIDE, head_size=20),
    "head size 64, fp16, four heads on one": replace(WIDE, head_size=64, heads=4, dtype=torch.float16),
    "head size 80, bf16": replace(WIDE, head_size=80, dtype=torch.bfloat16),
    "head size 128, bf16, two groups": replace(WIDE, head_size=128, heads=6, key_heads=2, dtype=torch.bfloat16),
    "head size 192, fp16": replace(WIDE, head_size=192, heads=1, dtype=torch.float16),
    "head size 256, bf16": replace(WIDE, head_size=256, heads=1, dtype=torch.bfloat16),
    "head size 256": replace(WIDE, head_size=256, heads=1),
    "head size 96": replace(WIDE, head_size=96, heads=1),
    "head size 192, values of 128, bf16": replace(WIDE, head_size=192, value_size=128, heads=1, dtype=torch.bfloat16),
    "head size 32, values of 80, fp16": replace(WIDE, head_size=32, value_size=80, heads=1, dtype=torch.float16),
    "soft cap": replace(WIDE, softcap=2.0, spread=2.0),
    "soft cap, head size 80, bf16": replace(WIDE, head_size=80, softcap=5.0, dtype=torch.bfloat16),
    "soft cap that every score passes": replace(WIDE, softcap=1.0, spread=10.0),
    "one key": Case((Run(0, 100, 40, 41, 0, 0),), head_size=64, heads=1, dtype=torch.bfloat16),
    "heads without groups, two of a batch": replace(WIDE, heads=3, key_heads=3, batch=2),
    "full steps between masked ones": replace(
        WIDE, runs=(Run(0, 70, 5, 140, 0, 0), Run(100, 150, 90, 95, 1, 1)), head_size=64, dtype=torch.bfloat16
    ),
}
CASES = {name: Case(mask) for name, mask in MASKS.items()} | SHAPES
table = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def check_forward(case: Case, fresh: bool) -> None:
    x = cases.tensors(case)
    before = cases.carried(case, x, fresh)
    found, expected = cases.same_state(before, torch.float32), cases.same_state(before, torch.float64)
    TritonKernel().forward(x.q, cases.block(case, x), found)
    exact = cases.doubled(x)
    ReferenceKernel().forward(exact.q, cases.block(case, exact), expected)
    for name in ("m", "l", "acc"):
        after = getattr(found, name)
        cases.assert_close(name, after[:, :, x.live], getattr(expected, name)[:, :, x.live], case)
        assert torch.equal(after[:, :, ~x.live], getattr(before, name)[:, :, ~x.live]), (
            f"{name}: rows in no run changed"
        )


def check_backward(case: Case) -> None:
    x = cases.tensors(case)
    saved, exact_saved = cases.saved_for(case, x)
    before, found = cases.gradients(case, x), cases.gradients(case, x)
    expected = Gradients(*(t.double() for t in (before.dq, before.dk, before.dv)))
    TritonKernel().backward(saved, cases.block(case, x), found)
    ReferenceKernel().backward(exact_saved, cases.block(case, cases.doubled(x)), expected)
    for name, filled in (("dq", x.live), ("dk", x.seen), ("dv", x.seen)):
        after = getattr(found, name)
        cases.assert_close(name, after[:, :, filled], getattr(expected, name)[:, :, filled], case)
        assert torch.equal(after[:, :, ~filled], getattr(before, name)[:, :, ~filled]), (
            f"{name}: wrote outside the runs"
        )


@table
@pytest.mark.parametrize("fresh", [True, False], ids=["from nothing", "from an earlier block"])
def test_the_forward_state_is_the_twins(case: Case, fresh: bool) -> None:
    check_forward(case, fresh)


@table
def test_gradients_are_added_as_the_twin_adds_them(case: Case) -> None:
    check_backward(case)


@st.composite
def bounds(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """(lo, hi, keys): the bounds of each row, ascending or in any order, some rows empty."""
    rows, keys = draw(st.integers(1, 80)), draw(st.integers(1, 90))
    ends = [draw(st.lists(st.integers(0, keys), min_size=rows, max_size=rows)) for _ in range(2)]
    lo, hi = [min(pair) for pair in zip(*ends, strict=True)], [max(pair) for pair in zip(*ends, strict=True)]
    return (sorted(lo), sorted(hi), keys) if draw(st.booleans()) else (lo, hi, keys)


@settings(max_examples=12, deadline=None)
@given(bounds())
def test_random_masks(drawn: tuple[list[int], list[int], int]) -> None:
    lo, hi, keys = drawn
    case = Case(runs(np.array(lo), np.array(hi)), rows=len(lo), keys=keys)
    check_forward(case, fresh=True)
    check_backward(case)


@pytest.mark.parametrize("spread", [1e-3, 30.0, 1e3])
def test_extreme_scores_neither_overflow_nor_vanish(spread: float) -> None:
    """Scores up to 10^7, where fp32 itself is a step of 1 apart: the bound grows with them."""
    case = Case(MASKS["triangle"], spread=spread)
    x = cases.tensors(case)
    state, exact = cases.carried(case, x, fresh=True), cases.doubled(x)
    expected = cases.same_state(state, torch.float64)
    TritonKernel().forward(x.q, cases.block(case, x), state)
    ReferenceKernel().forward(exact.q, cases.block(case, exact), expected)
    (o, lse), (o_exact, lse_exact) = state.finish(), expected.finish()
    assert float((lse - lse_exact).abs().max()) <= 1e-6 * max(1.0, float(lse_exact.abs().max()))
    assert float((o - o_exact).abs().max()) <= 1e-5 + 1e-6 * spread**2


def test_equal_scores_weigh_all_keys_alike() -> None:
    case = Case((Run(0, 100, 0, 110, 0, 0),), head_size=64, heads=1)
    x = cases.tensors(case)
    state = cases.carried(case, x, fresh=True)
    x.q.fill_(0.0)
    TritonKernel().forward(x.q, cases.block(case, x), state)
    o, lse = state.finish()
    assert torch.allclose(o, x.v.mean(2, keepdim=True).expand_as(o), atol=1e-6)
    assert torch.allclose(lse, torch.full_like(lse, 110.0).log())


@pytest.mark.parametrize("blocks", [1, 11])
def test_scores_of_ten_thousand_keep_their_weights_over_blocks(blocks: int) -> None:
    """Two keys 1 apart at 10^4, far from each other: rounding m alone at each block would shift their weights."""
    q = torch.zeros(1, 1, 16, 16, device=cases.DEVICE)
    k, v = torch.zeros(1, 1, 110, 16, device=cases.DEVICE), torch.zeros(1, 1, 110, 16, device=cases.DEVICE)
    q[..., 0], k[..., 0], v[:, :, -1] = 100.0, 9_000 / 100, 1.0
    k[:, :, 0, 0], k[:, :, -1, 0] = 10_001 / 100, 10_000 / 100
    state, width = Carry.empty(q), 110 // blocks
    for first in range(0, 110, width):
        TritonKernel().forward(q, Block(k, v, (Run(0, 16, first, first + width, 0, 0),), 1.0), state)
    scores = (q[0, 0, 0].double() @ k[0, 0].double().T).float()
    expected = scores.double().softmax(0)[-1]
    assert float((state.finish()[0].double() - expected).abs().max()) < 1e-3 * float(expected)


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_tiles_of_every_generation(target: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "_target", lambda device: target)
    case = replace(WIDE, runs=MASKS["band"], head_size=80, heads=1, dtype=dtype)
    check_forward(case, fresh=False)
    check_backward(case)


@pytest.mark.parametrize(
    "ways",
    [
        {"apart": True},
        {"halves": True},
        {"apart": True, "halves": True},
        {"held": False},
        {"described": True},
        {"described": True, "halves": True},
    ],
    ids=lambda ways: ", ".join(ways),
)
@pytest.mark.parametrize("head_size", [80, 192])
def test_every_way_to_make_room_for_larger_tiles(
    ways: dict[str, bool], head_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full and masked steps in launches of their own, dk and dv too, operands read part by part, or by descriptors."""
    monkeypatch.setattr(triton_kernel, "tile_for", lambda *_: replace(Tile(32, 16, 4, 1), **ways))
    case = replace(SHAPES["full steps between masked ones"], head_size=head_size, dtype=torch.float32)
    check_forward(case, fresh=False)
    check_backward(case)


@pytest.mark.parametrize("head_size", [64, 20, 81])
@pytest.mark.parametrize("group", [1, 3])
def test_descriptors_reach_every_head_whatever_the_strides(
    head_size: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are no multiple of 16 bytes, so that copies with room behind each row are read."""
    monkeypatch.setattr(triton_kernel, "tile_for", lambda *_: Tile(16, 32, 4, 1, described=True))
    mask = (Run(0, 140, 3, 150, 0, 0), Run(140, 150, 0, 9, 0, 0))
    check_backward(
        Case(mask, 150, 150, heads=2 * group, key_heads=2, head_size=head_size, batch=2, dtype=torch.bfloat16)
    )


@pytest.mark.parametrize("first", [0, 3])
def test_what_descriptors_read_is_copied_only_if_it_is_not_aligned(first: int) -> None:
    wide = torch.arange(2 * 3 * 5 * 24, dtype=torch.bfloat16).reshape(2, 3, 5, 24)
    for width in (16, 13):
        view = wide[..., first : first + width]
        x = aligned(rows_of(view))
        assert (x.at is view) == (first == 0)
        assert torch.equal(x.at, view)
        assert x.at.data_ptr() % 16 == 0
        assert all(stride % 8 == 0 for stride in x[1:])
    assert aligned(rows_of(wide[:, :1].expand(2, 3, 5, 24))).head > 0


@triton.jit
def addresses(x: Rows, batch, head, start, out):
    """The addresses of a tile [2, 16] and of its rows, as numbers."""
    places = tile_at(x, batch, head, start, dims_of(16, 256), 2)
    dim = tl.arange(0, 2)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out + dim, places[0].to(tl.int64))
    tl.store(out + 32 + tl.arange(0, 2), rows_at(x, batch, head, start, 2).to(tl.int64))


@pytest.mark.parametrize("strides", [(2**30, 2**28, 2**12), (2**31 - 16, 16, 16), (16, 2**31 - 16, 16)])
def test_addresses_pass_two_to_the_31_elements(strides: tuple[int, int, int]) -> None:
    """Computed, not read: no tensor of that size is needed to see whether a product wraps."""
    x, out = torch.zeros(16, device=cases.DEVICE), torch.zeros(34, dtype=torch.int64, device=cases.DEVICE)
    batch, head, start = 5, 7, 1_000_000
    addresses[(1,)](Rows(x, *strides), batch, head, start, out)
    first = x.data_ptr() + 4 * (batch * strides[0] + head * strides[1] + start * strides[2])
    assert (first - x.data_ptr()) // 4 > 2**31
    rows = [first + 4 * row * strides[2] for row in range(2)]
    assert out.tolist() == [row + 4 * dim for row in rows for dim in range(16)] + rows


def test_the_error_does_not_grow_with_the_number_of_blocks() -> None:
    case = Case((Run(0, 64, 0, 96, 0, 0),), rows=64, keys=96, head_size=32, dtype=torch.bfloat16)
    x = cases.tensors(case)
    expected = Carry.empty(x.q.double())
    exact = cases.doubled(x)
    ReferenceKernel().forward(exact.q, cases.block(case, exact), expected)

    def error(blocks: int) -> float:
        state, width = Carry.empty(x.q), case.keys // blocks
        for first in range(0, case.keys, width):
            part = (Run(0, case.rows, first, first + width, 0, 0),)
            TritonKernel().forward(x.q, Block(x.k, x.v, part, case.scale), state)
        return float((state.finish()[0] - expected.finish()[0]).abs().max())

    assert error(8) <= 1.25 * error(1) + 1e-6


def test_the_same_bits_twice() -> None:
    case = replace(WIDE, heads=4, dtype=torch.bfloat16)
    x = cases.tensors(case)
    saved, _ = cases.saved_for(case, x)
    twice = [cases.gradients(case, x) for _ in range(2)]
    for found in twice:
        TritonKernel().backward(saved, cases.block(case, x), found)
    assert all(torch.equal(getattr(twice[0], name), getattr(twice[1], name)) for name in ("dq", "dk", "dv"))


def test_a_gradient_without_strides_is_copied() -> None:
    """`o.sum().backward()` hands on a do whose strides are all 0."""
    case = Case(MASKS["triangle"])
    x = cases.tensors(case)
    saved, _ = cases.saved_for(case, x)
    ones = torch.ones((), device=x.q.device).expand(x.q.shape)
    found, expected = cases.gradients(case, x), cases.gradients(case, x)
    TritonKernel().backward(replace(saved, do=ones), cases.block(case, x), found)
    TritonKernel().backward(replace(saved, do=ones.contiguous()), cases.block(case, x), expected)
    assert torch.equal(found.dq, expected.dq)


@pytest.mark.parametrize(
    "case, says",
    [
        (Case((), head_size=8), "head size 8 is outside 16 .. 256"),
        (Case((), head_size=320), "head size 320"),
        (Case((), value_size=300), "head size of values 300 is outside 16 .. 256"),
        (Case((), softcap=-1.0), "softcap -1.0 is not positive"),
        (Case((), heads=3, key_heads=2), "3 query heads are no multiple of 2 key heads"),
    ],
)
def test_what_it_cannot_compute_is_refused(case: Case, says: str) -> None:
    x = cases.tensors(case)
    with pytest.raises(ValueError, match=says):
        TritonKernel().forward(x.q, cases.block(case, x), cases.carried(case, x, fresh=True))


def test_state_that_it_cannot_write_is_refused() -> None:
    case = Case(MASKS["triangle"])
    x = cases.tensors(case)
    good = Carry.empty(x.q)
    wrong = Carry(good.acc.mT.contiguous().mT, good.m, good.l)
    with pytest.raises(ValueError, match="acc has stride 100 in its head dim"):
        TritonKernel().forward(x.q, cases.block(case, x), wrong)
    with pytest.raises(ValueError, match=r"m is torch\.float64"):
        TritonKernel().forward(x.q, cases.block(case, x), Carry(good.acc, good.m.double(), good.l))
    with pytest.raises(ValueError, match="scale -1 is not positive"):
        TritonKernel().forward(x.q, Block(x.k, x.v, case.runs, -1), good)


@pytest.mark.parametrize("name", ["k", "acc"])
def test_rows_too_far_apart_for_offsets_of_32_bits_are_refused(name: str) -> None:
    """Strides alone are looked at: one element expanded stands for a tensor that no memory here would hold."""
    case = Case((), rows=1, keys=1, head_size=16, heads=1, batch=1)
    x = cases.tensors(case)
    state, block = cases.carried(case, x, fresh=True), cases.block(case, x)
    for stride in (2**23 - 1, 2**23):
        far = torch.zeros(1, 1, 1, 16, device=x.q.device).as_strided((1, 1, 1, 16), (16, 16, stride, 1))
        given = (replace(block, k=far), state) if name == "k" else (block, replace(state, acc=far))
        if stride < 2**23:
            TritonKernel().forward(x.q, *given)
        else:
            with pytest.raises(ValueError, match=f"{name} has rows 8388608 elements apart.* less than 8388608.*copy"):
                TritonKernel().forward(x.q, *given)
