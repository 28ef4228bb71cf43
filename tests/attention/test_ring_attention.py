"""Ring attention against dense attention in fp64: outputs and all gradients, and an error that does not grow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracle
from mask_cases import MASKS, inners, layouts, masks
from ring_worker.attention.function import loop_attention, ring_attention, virtual_rings
from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.ring import Ring
from virtual_ring import ring_and_gradients

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(
    length: int, heads: int = 4, groups: int = 2, sizes: tuple[int, int] = (8, 8), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """q, k, v, do; `sizes`: D and E."""
    make = torch.Generator().manual_seed(length * 31 + heads)
    parts = ((heads, sizes[0]), (groups, sizes[0]), (groups, sizes[1]), (heads, sizes[1]))
    return [torch.randn((2, x, length, size), generator=make, dtype=torch.float64).to(dtype) for x, size in parts]


def errors(tensors: list[Tensor], mask: Mask, layout: Layout, *, softcap=None, sinks=None, **options) -> list[float]:
    """Largest absolute error of o, dq, dk, dv, and of the sinks' gradient."""
    expected = oracle.attention_and_gradients(*tensors, mask, softcap=softcap, sinks=sinks)
    found = ring_and_gradients(tensors, mask, layout, softcap=softcap, sinks=sinks, **options)
    return [float((a.double() - b).abs().max()) if b.numel() else 0.0 for a, b in zip(found, expected, strict=True)]


SINKS = torch.tensor([-1.0, 0.0, 2.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_ring_computes_dense_attention_and_its_gradients(mask: Mask, kind: str) -> None:
    assert max(errors(drawn(61), mask, Layout(kind, 61, 3, stripe=8), rotate="keys")) < 1e-12
    tensors, layout = drawn(61, sizes=(8, 6)), Layout(kind, 61, 4, stripe=5)
    assert max(errors(tensors, mask, layout, inner=2, rotate="queries", softcap=2.0, sinks=SINKS)) < 1e-12


@pytest.mark.parametrize("ranks, inner", [(1, 1), (4, 2), (8, 4)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_so_does_the_flash_kernel_of_the_cpu(mask: Mask, ranks: int, inner: int) -> None:
    tensors = drawn(64, dtype=torch.float32)
    assert max(errors(tensors, mask, Layout("zigzag", 64, ranks), inner=inner, sinks=SINKS.float())) < 2e-5


@pytest.mark.parametrize("rotate", ["auto", "keys", "queries"])
@pytest.mark.parametrize("heads, groups", [(1, 1), (4, 4), (4, 1), (6, 2)])
def test_grouped_heads_share_their_keys(heads: int, groups: int, rotate: str) -> None:
    assert max(errors(drawn(50, heads, groups), CAUSAL, Layout("zigzag", 50, 4), rotate=rotate)) < 1e-12


RINGS = [
    (2, {}),
    (3, {"rotate": "queries"}),
    (4, {"inner": 2}),
    (8, {}),
    (8, {"rotate": "queries", "inner": 2}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "kernel, mask",
    [
        (CpuFlashKernel(), CAUSAL),
        (CpuFlashKernel(), FULL),
        (CpuFlashKernel(), Mask(window=50)),
        (ReferenceKernel(), CAUSAL),
    ],
    ids=["flash causal", "flash full", "flash window", "reference causal"],
)
def test_the_error_does_not_grow_with_the_ring(kernel, mask: Mask, dtype: torch.dtype) -> None:
    tensors = drawn(131, sizes=(16, 16), dtype=dtype)
    expected = oracle.attention_and_gradients(*tensors, mask)

    def error(ranks: int, **options) -> list[float]:
        found = ring_and_gradients(tensors, mask, Layout("zigzag", 131, ranks), kernel=kernel, **options)
        return [float((a.double() - b).abs().max()) for a, b in zip(found, expected, strict=True)]

    alone = error(1)
    for ranks, options in RINGS:
        found = error(ranks, **options)
        assert all(b <= 1.25 * a + 1e-6 for a, b in zip(alone, found, strict=True)), (ranks, options, alone, found)


OF_A_DTYPE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2**-5, torch.float16: 2**-8}
"""Largest error, relative to the largest number: the outputs' own rounding, and some of the sums'."""


@settings(max_examples=50)
@given(st.data())
def test_any_mask_layout_ring_and_dtype(data: st.DataObject) -> None:
    """Lengths shorter than the ring and rows without keys among them."""
    layout = data.draw(layouts(longest=70, most=8))
    mask, dtype = data.draw(masks(layout.length)), data.draw(st.sampled_from(list(OF_A_DTYPE)))
    heads, groups = data.draw(st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1)]))
    tensors = drawn(layout.length, heads, groups, data.draw(st.sampled_from([(8, 8), (8, 4), (4, 8)])), dtype)
    options = {
        "softcap": data.draw(st.sampled_from([None, 0.7, 20.0])),
        "sinks": data.draw(st.sampled_from([None, torch.linspace(-2, 2, heads).to(dtype)])),
    }
    expected = oracle.attention_and_gradients(*tensors, mask, **options)
    inner, rotate = data.draw(inners(layout)), data.draw(st.sampled_from(["auto", "keys", "queries"]))
    found = ring_and_gradients(tensors, mask, layout, inner=inner, rotate=rotate, **options)
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() <= OF_A_DTYPE[dtype] * max(1, float(b.abs().max()))


def test_a_gradient_check_in_fp64() -> None:
    """By finite differences: what autograd is told is the derivative of what is computed."""
    q, k, v, _ = (x[:1].requires_grad_() for x in drawn(9, heads=2, groups=1, sizes=(3, 2)))
    sinks = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    mask = Mask(window=5, global_tokens=2)
    for rotate in ("keys", "queries"):
        rings = virtual_rings(Layout("zigzag", 9, 4), inner=2, rotate=rotate)

        def attend(q: Tensor, k: Tensor, v: Tensor, s: Tensor, rings: list[Ring] = rings) -> Tensor:
            return loop_attention(q, k, v, rings, mask, softcap=1.5, sinks=s)

        assert torch.autograd.gradcheck(attend, (q, k, v, sinks), fast_mode=True)


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((1, 4, 7, 8), (1, 2, 8, 8), (1, 2, 8, 8)), "owns 8 tokens, but q has 7, k 8"),
        (((1, 4, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)), "does not fit"),
        (((1, 4, 8, 8), (1, 2, 8, 16), (1, 2, 8, 16)), "does not fit"),
        (((1, 4, 8, 8), (1, 2, 8, 8), (1, 4, 8, 8)), "differ in B, G or S"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_both_numbers(shapes, message: str) -> None:
    q, k, v = (torch.zeros(s) for s in shapes)
    with pytest.raises(ValueError, match=message):
        ring_attention(q, k, v, Ring(Layout("zigzag", 8, 1)), CAUSAL)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"softcap": 0.0}, "softcap 0.0 must be above 0"),
        ({"sinks": torch.zeros(2)}, r"sinks \[2\], but q has 4 heads"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message: str) -> None:
    q, k, v, _ = drawn(8)
    with pytest.raises(ValueError, match=message):
        ring_attention(q, k, v, Ring(Layout("zigzag", 8, 1)), CAUSAL, **options)


def test_unlike_dtypes_are_refused() -> None:
    q, k, v, _ = drawn(8)
    with pytest.raises(ValueError, match=r"q is torch\.float64, k torch\.float32"):
        ring_attention(q, k.float(), v, Ring(Layout("zigzag", 8, 1)))
