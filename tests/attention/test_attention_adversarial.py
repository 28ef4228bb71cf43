"""Ring attention where it hurts: poisoned buffers, extreme logits, NaN that is masked out, rounded gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import oracle
from mask_cases import MASKS
from ring_worker.attention.function import virtual_rings
from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Blocks, Mask
from ring_worker.attention.travel import Group
from virtual_ring import ring_and_gradients, through

pytestmark = pytest.mark.usefixtures("one_thread")
KERNELS = pytest.mark.parametrize("kernel", [CpuFlashKernel(), ReferenceKernel()], ids=lambda k: k.name)
ROTATIONS = pytest.mark.parametrize("rotate", ["keys", "queries"])


def drawn(length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    make = torch.Generator().manual_seed(length)
    return [torch.randn((1, heads, length, 8), generator=make).to(dtype) for heads in (4, 2, 2, 4)]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer of the ring starts as NaN instead of whatever the memory held."""
    make = Group.buffer
    monkeypatch.setattr(Group, "buffer", lambda *args: make(*args).fill_(torch.nan))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "kind, inner, rotate", [("zigzag", 6, "keys"), ("contiguous", 2, "keys"), ("striped", 3, "queries")]
)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_nothing_is_read_that_has_not_arrived(mask: Mask, kind: str, inner: int, rotate: str) -> None:
    tensors = drawn(61, torch.float64)
    found = ring_and_gradients(tensors, mask, Layout(kind, 61, 6, stripe=5), inner=inner, rotate=rotate)
    expected = oracle.attention_and_gradients(*tensors, mask)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-12


@ROTATIONS
def test_what_another_pass_left_in_the_buffers_changes_no_bit(rotate: str) -> None:
    """A ring that has just served another layer, with another mask and larger numbers, and a new one."""
    tensors, layout = drawn(100), Layout("zigzag", 100, 4)
    for mask in (CAUSAL, Mask(window=20), Mask(documents=(0, 30, 31))):
        used, new = (virtual_rings(layout, inner=2, rotate=rotate) for _ in range(2))
        through(used, [x * 1e3 for x in tensors], FULL)
        for ring in used:
            for buffer in ring._buffers.values():
                buffer.fill_(torch.nan)
        for a, b in zip(through(used, tensors, mask), through(new, tensors, mask), strict=True):
            assert torch.equal(a, b)


@KERNELS
@ROTATIONS
def test_two_runs_give_the_same_bits(kernel, rotate: str) -> None:
    tensors, layout = drawn(100, torch.bfloat16), Layout("zigzag", 100, 4)
    sinks = torch.randn(4, generator=torch.Generator().manual_seed(0))
    first, second = (
        ring_and_gradients(tensors, CAUSAL, layout, kernel=kernel, rotate=rotate, inner=2, sinks=sinks)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length, ranks", [(1, 1), (1, 4), (3, 8), (5, 4)])
def test_ranks_may_own_nothing(length: int, ranks: int, kind: str) -> None:
    tensors, layout = drawn(length), Layout(kind, length, ranks, stripe=2)
    for mask in (CAUSAL, FULL, Mask(window=2)):
        expected = oracle.attention_and_gradients(*tensors, mask)
        for a, b in zip(ring_and_gradients(tensors, mask, layout), expected, strict=True):
            assert (a - b).abs().max() < 1e-5


@KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extreme_logits_stay_finite_and_pick_the_largest(kernel, dtype: torch.dtype) -> None:
    q, k, v, do = drawn(40, dtype)
    found = ring_and_gradients([(q * 1e4).to(dtype), k, v, do], CAUSAL, Layout("zigzag", 40, 4), kernel=kernel)
    assert all(bool(x.isfinite().all()) for x in found)
    expected = oracle.attention_and_gradients((q * 1e4).to(dtype), k, v, do, CAUSAL)[0]
    assert (found[0].double() - expected).abs().max() < (0.02 if dtype == torch.float32 else 0.05)


@KERNELS
def test_equal_logits_give_the_mean(kernel) -> None:
    q, k, v, do = drawn(40)
    o, *_ = ring_and_gradients([q * 0, k, v, do], CAUSAL, Layout("zigzag", 40, 4), kernel=kernel)
    mean = v.cumsum(2) / torch.arange(1, 41)[:, None]
    assert (o - mean.repeat_interleave(2, dim=1)).abs().max() < 1e-6


@KERNELS
def test_a_row_with_one_key_is_that_keys_value(kernel) -> None:
    q, k, v, do = drawn(40)
    o, dq, _, dv = ring_and_gradients(
        [q * 1e4, k, v, do], Mask(window=1), Layout("striped", 40, 4, stripe=3), kernel=kernel
    )
    assert torch.equal(o, v.repeat_interleave(2, dim=1))
    assert (dv - do.unflatten(1, (2, 2)).sum(2)).abs().max() < 1e-6
    assert dq.abs().max() < 1e-2  # of 1e4 x rounding


@KERNELS
def test_rows_without_keys_are_nought_and_give_no_gradient(kernel) -> None:
    tensors = drawn(32)
    mask = Mask(causal=False, blocks=Blocks(8, 8, ((), (0, 2), (), (3,))))
    o, dq, dk, dv = ring_and_gradients(tensors, mask, Layout("zigzag", 32, 4), kernel=kernel)
    for x in (o, dq):
        assert not x[:, :, :8].any()
        assert not x[:, :, 16:24].any()
    for x in (dk, dv):
        assert not x[:, :, 8:16].any()


@KERNELS
@ROTATIONS
@pytest.mark.parametrize("kind", KINDS)
def test_another_documents_nan_does_not_leak(kernel, rotate: str, kind: str) -> None:
    """Neither into its outputs nor into any gradient, though just a token of one lies on some ranks."""
    q, k, v, do = drawn(48)
    mask, layout = Mask(documents=(0, 13, 30, 31)), Layout(kind, 48, 4, stripe=5)
    options = {"kernel": kernel, "rotate": rotate}
    clean = ring_and_gradients([q, k, v, do], mask, layout, **options)
    for x in (q, k, v, do):
        x[:, :, 13:31] = torch.nan
    dirty = ring_and_gradients([q, k, v, do], mask, layout, **options)
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[:, :, :13], b[:, :, :13])
        assert torch.equal(a[:, :, 31:], b[:, :, 31:])
        assert b[:, :, 13:31].isnan().all()


@KERNELS
def test_a_key_that_no_query_of_a_run_sees_may_be_nan(kernel) -> None:
    """A run is a stretch of rows whose bounds move alike. Inside one, a masked key takes part as 0 x value, as in every
    tiled kernel, and there 0 x NaN is NaN: so a later token of the same document may spoil an earlier one."""
    q, k, v, do = drawn(48)
    mask = Mask(causal=False, blocks=Blocks(8, 8, ((0,), (2,), (2, 3), (0,), (5,), (3, 5))))
    layout = Layout("contiguous", 48, 4)
    clean = ring_and_gradients([q, k, v, do], mask, layout, kernel=kernel)
    for x in (k, v):
        x[:, :, 8:16], x[:, :, 32:40] = torch.nan, torch.nan
    for a, b in zip(clean, ring_and_gradients([q, k, v, do], mask, layout, kernel=kernel), strict=True):
        assert torch.equal(a, b)


@ROTATIONS
def test_gradient_sums_rounded_on_their_way_stay_close(rotate: str) -> None:
    """By half the distance of two bf16 numbers a hop; without rounding, no precision is lost."""
    tensors, layout = drawn(128), Layout("zigzag", 128, 8)
    expected = oracle.attention_and_gradients(*tensors, CAUSAL)
    exact = ring_and_gradients(tensors, CAUSAL, layout, rotate=rotate)
    rounded = ring_and_gradients(tensors, CAUSAL, layout, rotate=rotate, gradient_dtype=torch.bfloat16)
    assert torch.equal(exact[0], rounded[0])
    for a, b, c in zip(exact, rounded, expected, strict=True):
        assert (a - c).abs().max() < 1e-5
        assert (b - c).abs().max() <= 8 * 2**-9 * float(c.abs().max())
    moved = rounded[1] if rotate == "queries" else rounded[2]
    assert not torch.equal(moved, exact[1] if rotate == "queries" else exact[2])
