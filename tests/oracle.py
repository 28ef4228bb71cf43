"""Dense attention in fp64, from the definition: what every kernel, layout and transport is compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.masks import Blocks, Mask


def visible(mask: Mask, length: int) -> Tensor:
    """bool [S, S] by each mask's own words, without the intervals that the code goes by."""
    q, k = torch.arange(length)[:, None], torch.arange(length)[None, :]
    starts = torch.tensor(mask.documents or (0,))
    document = torch.from_numpy(np.searchsorted(starts.numpy(), np.arange(length), side="right")) - 1
    same, into = document[:, None] == document[None, :], k - starts[document][:, None]
    seen = same.clone()
    if mask.causal:
        seen &= (k <= q) | (into < torch.tensor(mask.prefix).expand(len(starts))[document][:, None])
    if mask.window is not None:
        seen &= (q - k < mask.window) & (torch.tensor(mask.causal) | (k - q < mask.window))
    if mask.chunk is not None:
        seen &= q // mask.chunk == k // mask.chunk
    if mask.blocks:
        seen &= _in_blocks(mask.blocks, length)
    return seen | (same & (k <= q) & (into < mask.global_tokens))


def _in_blocks(blocks: Blocks, length: int) -> Tensor:
    seen = torch.zeros(length, length, dtype=torch.bool)
    for i, keys in enumerate(blocks.seen):
        for j in keys:
            seen[i * blocks.query : (i + 1) * blocks.query, j * blocks.key : (j + 1) * blocks.key] = True
    return seen


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """q [B, H, S, D], k [B, G, S, D], v [B, G, S, E], sinks [H] -> [B, H, S, E], all fp64; rows without keys are 0."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    hidden = ~visible(mask, q.shape[2])
    scores = scores.masked_fill(hidden, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(*scores.shape[:3], 1)], dim=-1)
    return scores.softmax(-1)[..., : k.shape[2]].masked_fill(hidden, 0) @ v


def attention_and_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    do: Tensor,
    mask: Mask,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> list[Tensor]:
    """[o, dq, dk, dv] in fp64, and with sinks their gradient."""
    inputs = [x.double().detach().requires_grad_() for x in (q, k, v) + ((sinks,) if sinks is not None else ())]
    o = attention(*inputs[:3], mask, softcap, inputs[3] if sinks is not None else None)
    return [o.detach(), *torch.autograd.grad(o, inputs, do.double())]
