"""A ring of threads in this process: every rank runs the real code, over the thread transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Kernel
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Mask
from ring_worker.attention.ring import Ring, ring_attention
from ring_worker.attention.transport import Solo, ThreadTransport


def rings(layout: Layout, kernel: Kernel | None = None) -> list[Ring]:
    if layout.ranks == 1:
        return [Ring(layout, Solo(), kernel)]
    return [Ring(layout, transport, kernel) for transport in ThreadTransport.make(layout.ranks)]


def on_every_rank(ranks: Sequence[Ring], work: Callable[[Ring], list[Tensor]]) -> list[list[Tensor]]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(work, ring) for ring in ranks]]


def ring_and_gradients(
    tensors: Sequence[Tensor], mask: Mask, layout: Layout, kernel: Kernel | None = None
) -> list[Tensor]:
    """[o, dq, dk, dv] of the whole sequence, computed by a ring; `tensors` = q, k, v, do, whole."""
    places = [torch.from_numpy(layout.positions(rank)) for rank in range(layout.ranks)]

    def work(ring: Ring) -> list[Tensor]:
        q, k, v, do = (x.index_select(2, places[ring.rank]) for x in tensors)
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        o = ring_attention(q, k, v, ring, mask)
        return [o.detach(), *torch.autograd.grad(o, (q, k, v), do)]

    shards = on_every_rank(rings(layout, kernel), work)
    order = torch.argsort(torch.cat(places))
    return [torch.cat(parts, 2).index_select(2, order) for parts in zip(*shards, strict=True)]
