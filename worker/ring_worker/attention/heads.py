"""Ulysses: ranks that hold different tokens of one ring position exchange them for different heads, and back.

Before attention every member holds all heads of a part of the position's tokens; for attention it holds all of the
position's tokens and a part of the heads (Jacobs et al., "DeepSpeed Ulysses", 2023). Where members outnumber key heads,
a key head goes to every member that has query heads of its group, and its gradients are added up on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ring_worker.attention.ring import Ring, part_sizes
from ring_worker.attention.transport import HEADS, Message


def scatter_heads(x_BXSD: Tensor, ring: Ring, query_heads: int) -> Tensor:
    """All heads of this member's tokens [B, X, S, D] -> some heads of all tokens of its position. Differentiable."""
    members, heads = ring.heads.size, x_BXSD.shape[1]
    if query_heads % members or (heads % members and members % heads):
        raise ValueError(
            f"ulysses: {query_heads} query heads and {heads} key heads over {members} ranks: the ranks must divide the "
            "query heads, and divide the key heads or be a multiple of them"
        )
    if heads < members:
        x_BXSD = x_BXSD.repeat_interleave(members // heads, dim=1)
    scattered: Tensor = _Exchange.apply(x_BXSD, ring, True)
    return scattered


def gather_heads(x_BXSD: Tensor, ring: Ring) -> Tensor:
    """The inverse, of outputs: back to all heads of this member's tokens. Differentiable."""
    gathered: Tensor = _Exchange.apply(x_BXSD, ring, False)
    return gathered


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: Ring, scatter: bool) -> Tensor:
        ctx.ring, ctx.scatter = ring, scatter
        return _exchange(x, ring, scatter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _exchange(grad, ctx.ring, not ctx.scatter), None, None


def _exchange(x: Tensor, ring: Ring, scatter: bool) -> Tensor:
    """Part i along one dim goes to member i, what comes from member i is part i along the other."""
    members, me = ring.heads.size, ring.heads.rank
    tokens = part_sizes(ring.layout.size(ring.rank), members)
    sent = [part.contiguous() for part in (x.tensor_split(members, 1) if scatter else x.split(tokens, 2))]
    batch, heads, _, width = sent[me].shape
    shapes = [(batch, heads, tokens[i] if scatter else tokens[me], width) for i in range(members)]
    received = [sent[i] if i == me else x.new_empty(shape) for i, shape in enumerate(shapes)]
    others = [i for i in range(members) if i != me]
    ring.heads.exchange(HEADS, [Message(sent[i], i) for i in others], [Message(received[i], i) for i in others]).wait()
    return torch.cat(received, dim=2 if scatter else 1)
