"""The probe says nothing about a right ring, and finds a wrong one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mask_cases import MASKS
from ring_worker.attention.function import loop_attention, ring_attention, virtual_rings
from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.interface import Block, Carry
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL, Mask
from ring_worker.attention.passes import Call
from ring_worker.attention.probe import Probed, drawn, probe, probe_pass
from ring_worker.attention.ring import Ring
from ring_worker.attention.shards import shard
from ring_worker.attention.transport.loop import lockstep

pytestmark = pytest.mark.usefixtures("one_thread")


def inputs(length: int, dtype: torch.dtype = torch.float32, value: int = 8) -> list[Tensor]:
    make = torch.Generator().manual_seed(length)
    shapes = [(2, 4, length, 8), (2, 2, length, 8), (2, 2, length, value)]
    return [torch.randn(shape, generator=make).to(dtype) for shape in shapes]


def probed(
    qkv: list[Tensor],
    o: Tensor,
    rings: list[Ring],
    mask: Mask,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    rows: int = 16,
) -> Probed:
    """All ranks' findings together."""
    layout, q = rings[0].layout, qkv[0]
    sample = drawn(layout.length, rows, seed=7)
    passes = [
        probe_pass(
            Call(ring, mask, q.shape[-1] ** -0.5, softcap),
            [shard(x, layout, ring.rank, dim=2) for x in (*qkv, o)],
            sinks,
            sample,
        )
        for ring in rings
    ]
    found = lockstep(passes)
    return Probed(sum(f.rows for f in found), sum(f.mismatches for f in found), max(f.worst for f in found))


@pytest.mark.parametrize("dtype, kind", [(torch.float32, "zigzag"), (torch.bfloat16, "striped")], ids=str)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_right_ring_has_no_mismatches(mask: Mask, dtype: torch.dtype, kind: str) -> None:
    qkv, rings = inputs(61, dtype, value=6), virtual_rings(Layout(kind, 61, 4, stripe=5))
    sinks = torch.linspace(-1, 1, 4)
    o = loop_attention(*qkv, rings, mask, softcap=3.0, sinks=sinks)
    found = probed(qkv, o, rings, mask, softcap=3.0, sinks=sinks)
    assert (found.rows, found.mismatches) == (16, 0)
    o = loop_attention(*qkv[:2], qkv[0][:, :2], rings, mask)
    assert probed([*qkv[:2], qkv[0][:, :2]], o, rings, mask).mismatches == 0


class Dropping:
    """A kernel that leaves out the last key of every run; `only` on these ranks' blocks of this many keys."""

    name = "dropping"

    def forward(self, q: Tensor, block: Block, carry: Carry) -> None:
        runs = [replace(run, hi=run.hi - 1) for run in block.runs if run.hi - run.lo > 1]
        choose(q.device, q.dtype).forward(q, replace(block, runs=runs), carry)


class Wider:
    """A window of one key too many."""

    name = "wider"

    def forward(self, q: Tensor, block: Block, carry: Carry) -> None:
        runs = [replace(run, lo=run.lo - 1) if run.lo and run.lo_step else run for run in block.runs]
        choose(q.device, q.dtype).forward(q, replace(block, runs=runs), carry)


class Uncapped:
    """Forgets the soft cap."""

    name = "uncapped"

    def forward(self, q: Tensor, block: Block, carry: Carry) -> None:
        choose(q.device, q.dtype).forward(q, replace(block, softcap=None), carry)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "kernel, mask, softcap",
    [
        (Dropping(), CAUSAL, None),
        (Dropping(), Mask(documents=(0, 40, 150)), None),
        (Wider(), Mask(window=30), None),
        (Uncapped(), CAUSAL, 0.5),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_a_wrong_kernel_is_found(kernel, mask, softcap, dtype) -> None:
    qkv = inputs(256, dtype)
    layout = Layout("zigzag", 256, 4)
    wrong, right = (virtual_rings(layout, kernel=k) for k in (kernel, None))
    found = probed(qkv, loop_attention(*qkv, wrong, mask, softcap=softcap), right, mask, softcap=softcap)
    assert found.mismatches > 8
    assert found.worst > 0.05
    found = probed(qkv, loop_attention(*qkv, right, mask, softcap=softcap), right, mask, softcap=softcap)
    assert found.mismatches == 0


def test_another_mask_and_forgotten_sinks_are_found() -> None:
    qkv, rings = inputs(96), virtual_rings(Layout("contiguous", 96, 3))
    o = loop_attention(*qkv, rings, Mask(window=40))
    assert probed(qkv, o, rings, Mask(window=41)).mismatches >= 7
    assert probed(qkv, o, rings, Mask(window=40), sinks=torch.zeros(4)).mismatches == 16


@pytest.mark.parametrize("place", ["o", "k"])
def test_nan_differs_from_a_number_but_not_from_nan(place: str) -> None:
    qkv, rings = inputs(32), virtual_rings(Layout("zigzag", 32, 2))
    o = loop_attention(*qkv, rings)
    if place == "o":
        o[:, 1, 20] = torch.nan
    else:
        qkv[1][:, :, 20] = torch.nan
    found = probed(qkv, o, rings, CAUSAL, rows=32)
    assert (found.mismatches, found.worst) == (1 if place == "o" else 12, float("inf"))
    if place == "k":
        o[:, :, 20:] = torch.nan
        assert probed(qkv, o, rings, CAUSAL, rows=32).mismatches == 0


def test_one_rank_needs_no_exchange_and_draws_no_more_rows_than_there_are() -> None:
    q, k, v = inputs(5)
    ring = Ring(Layout("zigzag", 5, 1))
    o = ring_attention(q, k, v, ring)
    found = probe(q, k, v, o, ring, CAUSAL, rows=9)
    assert (found.rows, found.mismatches) == (5, 0)
    assert probe(q, k, v, o + 1, ring, CAUSAL, rows=2).mismatches == 2


def test_the_sample_is_the_seeds() -> None:
    assert (drawn(1000, 6, 3) == drawn(1000, 6, 3)).all()
    assert (drawn(1000, 6, 3) != drawn(1000, 6, 4)).any()
    assert len(set(drawn(8, 8, 0))) == 8
