"""Memory of a pass, counted: two travelling buffers and O(S/N) of all else, whatever the number of ranks."""

from __future__ import annotations

import pytest
import torch

from allocations import LiveBytes
from ring_worker.attention.function import loop_attention, virtual_rings
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL, FULL, Mask

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = 32  # of a rank
NUMBER = 4  # bytes, fp32
KV = TOKENS * 2 * (16 + 16) * NUMBER  # 2 key heads of 16: keys and values of a rank, or their gradients
Q = TOKENS * 4 * 16 * NUMBER  # 4 query heads: a rank's queries, outputs, or gradients of either
ROWS = TOKENS * 4 * NUMBER  # a number a row: lse or delta


def peaks(ranks: int, mask: Mask, inner: int | None, rotate: str) -> tuple[int, int]:
    """(forward, backward): bytes alive at most, of all virtual ranks together."""
    length, make = ranks * TOKENS, torch.Generator().manual_seed(0)
    q, k, v, do = (torch.randn(1, heads, length, 16, generator=make) for heads in (4, 2, 2, 4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    rings = virtual_rings(Layout("zigzag", length, ranks), inner=inner, rotate=rotate)
    with LiveBytes() as forward:
        o = loop_attention(*inputs, rings, mask)
    with LiveBytes() as backward:
        torch.autograd.grad(o, inputs, do)
    return forward.peak, backward.peak


@pytest.mark.parametrize("ranks, mask", [(2, CAUSAL), (4, FULL), (16, CAUSAL)], ids=str)
def test_a_forward_pass_holds_two_blocks_of_keys_whatever_the_ring(ranks: int, mask: Mask) -> None:
    """The loop's own shards of q, k and v and its whole output come on top; and what one rank at a time computes."""
    forward, _ = peaks(ranks, mask, None, "keys")
    shards, results = Q + KV, 2 * Q + ROWS
    assert forward <= ranks * (shards + results + 2 * KV) + 2 * (Q + ROWS)


@pytest.mark.parametrize("ranks, inner", [(4, 2), (8, 4)])
def test_a_ring_of_rings_holds_two_more(ranks: int, inner: int) -> None:
    forward, _ = peaks(ranks, FULL, inner, "keys")
    assert forward <= ranks * (Q + KV + 2 * Q + ROWS + 4 * KV) + 2 * (Q + ROWS)


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("rotate", ["keys", "queries"])
def test_a_backward_pass_holds_four_sums_and_its_gradients_whatever_the_ring(rotate: str, ranks: int) -> None:
    """Four sums: this step's, the last one's, one arriving, one that comes home. Queries need buffers of their own."""
    _, backward = peaks(ranks, CAUSAL, None, rotate)
    own, loops = Q + KV, Q + (Q + KV) + Q  # the loop's shards of do, and its whole gradients
    travelling = 4 * KV if rotate == "keys" else 2 * (2 * Q + 2 * ROWS) + 4 * Q
    assert backward <= ranks * (own + loops + travelling) + 4 * (Q + KV)


@pytest.mark.parametrize("rotate", ["keys", "queries"])
def test_a_backward_pass_of_a_ring_of_rings_holds_six(rotate: str) -> None:
    for ranks in (4, 8):
        _, backward = peaks(ranks, CAUSAL, 2, rotate)
        travelling = 6 * KV if rotate == "keys" else 4 * (2 * Q + 2 * ROWS) + 6 * Q
        assert backward <= ranks * (Q + KV + Q + (Q + KV) + Q + travelling) + 4 * (Q + KV)


def test_a_ring_keeps_its_buffers_and_gives_them_back_when_asked() -> None:
    rings = virtual_rings(Layout("zigzag", 4 * TOKENS, 4))
    q, k, v = (torch.randn(1, heads, 4 * TOKENS, 16) for heads in (4, 2, 2))
    loop_attention(q, k, v, rings)
    kept = [{key: b.data_ptr() for key, b in ring._buffers.items()} for ring in rings]
    assert [sum(b.nbytes for b in ring._buffers.values()) for ring in rings] == [2 * KV] * 4
    loop_attention(q, k, v, rings)
    assert kept == [{key: b.data_ptr() for key, b in ring._buffers.items()} for ring in rings]
    for ring in rings:
        ring.release()
    assert not any(ring._buffers for ring in rings)


def test_live_bytes_are_those_of_memory_that_lives() -> None:
    before = torch.zeros(100)
    with LiveBytes() as counted:
        for _ in range(3):
            made = before + 1
            del made
        two = [before.clone(), before.view(10, 10)]
        two.append(two[0] * 2)
    assert counted.peak == 800
