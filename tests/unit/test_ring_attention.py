"""Ring attention against dense attention in fp64: outputs and all gradients, and an error that does not grow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from ring_worker.attention.function import ring_attention
from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.ring import Ring
from virtual_ring import ring_and_gradients

MASKS = [
    CAUSAL,
    FULL,
    Mask(window=9),
    Mask(window=200),
    Mask(chunk=16),
    Mask(documents=(0, 5, 6, 40)),
    Mask(causal=False, documents=(0, 31)),
    Mask(window=12, chunk=32, documents=(0, 17)),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(length: int, heads: int = 4, groups: int = 2, size: int = 16, dtype: torch.dtype = torch.float32):
    make = torch.Generator().manual_seed(length * 31 + heads)
    shapes = [(2, heads, length, size), (2, groups, length, size), (2, groups, length, size), (2, heads, length, size)]
    return [torch.randn(shape, generator=make, dtype=torch.float64).to(dtype) for shape in shapes]


def errors(tensors, mask, layout, kernel=None) -> list[float]:
    """Largest absolute error of o, dq, dk, dv."""
    expected = oracle.attention_and_gradients(*tensors, mask)
    found = ring_and_gradients(tensors, mask, layout, kernel)
    return [float((a.double() - b).abs().max()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("length", [64, 61])
def test_a_ring_computes_dense_attention_and_its_gradients(length, mask, kind, ranks):
    tensors = drawn(length)
    layout = Layout(kind, length, ranks, stripe=8)
    assert max(errors(tensors, mask, layout)) < 1e-5
    assert max(errors([x.double() for x in tensors], mask, layout)) < 1e-12


@pytest.mark.parametrize("heads, groups", [(1, 1), (4, 4), (4, 1), (6, 2)])
def test_grouped_heads_share_their_keys(heads, groups):
    assert max(errors(drawn(50, heads, groups), CAUSAL, Layout("zigzag", 50, 4))) < 1e-5


@pytest.mark.parametrize("kernel", [CpuFlashKernel(), ReferenceKernel()], ids=lambda k: k.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mask", [CAUSAL, FULL, Mask(window=100)], ids=str)
def test_the_error_does_not_grow_with_the_ring(kernel, dtype, mask):
    tensors = drawn(509, dtype=dtype)
    alone, *together = [errors(tensors, mask, Layout("zigzag", 509, ranks), kernel) for ranks in (1, 2, 3, 4, 8)]
    for found in together:
        assert all(b <= 1.25 * a + 1e-6 for a, b in zip(alone, found, strict=True)), (alone, found)


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_may_own_nothing(kind):
    assert max(errors(drawn(5), CAUSAL, Layout(kind, 5, 4, stripe=3))) < 1e-5


@pytest.mark.parametrize("kernel", [CpuFlashKernel(), ReferenceKernel()], ids=lambda k: k.name)
def test_extreme_and_equal_logits_stay_finite(kernel):
    for factor in (0.0, 1e4):
        q, k, v, do = drawn(40)
        found = ring_and_gradients([q * factor, k, v, do], CAUSAL, Layout("zigzag", 40, 4), kernel)
        assert all(bool(x.isfinite().all()) for x in found)


def test_masked_out_keys_do_not_leak():
    """Keys of another document are NaN; the rows of this one must not notice."""
    q, k, v, do = drawn(48)
    mask = Mask(documents=(0, 24))
    clean = ring_and_gradients([q, k, v, do], mask, Layout("contiguous", 48, 4))
    k[:, :, 24:], v[:, :, 24:], do[:, :, 24:] = torch.nan, torch.nan, torch.nan
    dirty = ring_and_gradients([q, k, v, do], mask, Layout("contiguous", 48, 4))
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[:, :, :24], b[:, :, :24])


def test_two_runs_give_the_same_bits():
    tensors, layout = drawn(100), Layout("zigzag", 100, 4)
    for a, b in zip(*(ring_and_gradients(tensors, CAUSAL, layout) for _ in range(2)), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_mask_layout_and_ring(data):
    length = data.draw(st.integers(2, 70))
    causal = data.draw(st.booleans())
    starts = data.draw(st.sets(st.integers(1, length), max_size=4))
    mask = Mask(
        causal=causal,
        window=data.draw(st.none() | st.integers(1, 80)) if causal else None,
        chunk=data.draw(st.none() | st.integers(1, 80)),
        documents=(0, *sorted(s for s in starts if s < length)),
    )
    kind = data.draw(st.sampled_from(KINDS))
    layout = Layout(kind, length, data.draw(st.integers(1, 8)), stripe=data.draw(st.integers(1, 9)))
    tensors = [x.double() for x in drawn(length, size=8)]
    assert max(errors(tensors, mask, layout)) < 1e-12


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((1, 4, 7, 8), (1, 2, 8, 8)), "owns 8 tokens, but q has 7, k 8"),
        (((1, 4, 8, 8), (1, 3, 8, 8)), "does not fit"),
        (((1, 4, 8, 8), (1, 2, 8, 16)), "does not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_both_numbers(shapes, message):
    q, k = (torch.zeros(s) for s in shapes)
    with pytest.raises(ValueError, match=message):
        ring_attention(q, k, k, Ring(Layout("zigzag", 8, 1)), CAUSAL)
