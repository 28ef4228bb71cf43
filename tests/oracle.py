"""Dense attention in fp64, from the definition: what every kernel, layout and transport is compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.masks import Mask


def visible(mask: Mask, length: int) -> Tensor:
    """bool [S, S] by each mask's own words, without the intervals that the code goes by."""
    q, k = torch.arange(length)[:, None], torch.arange(length)[None, :]
    seen = torch.ones(length, length, dtype=torch.bool)
    if mask.causal:
        seen &= k <= q
    if mask.window is not None:
        seen &= q - k < mask.window
    if mask.chunk is not None:
        seen &= q // mask.chunk == k // mask.chunk
    if mask.documents:
        document = torch.from_numpy(np.searchsorted(mask.documents, np.arange(length), side="right"))
        seen &= document[:, None] == document[None, :]
    return seen


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """q [B, H, S, D], k and v [B, G, S, D] -> [B, H, S, D], all fp64; rows without keys are 0."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    hidden = ~visible(mask, q.shape[2])
    return scores.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0) @ v


def attention_and_gradients(q: Tensor, k: Tensor, v: Tensor, do: Tensor, mask: Mask) -> list[Tensor]:
    """[o, dq, dk, dv] in fp64."""
    q, k, v = (x.double().detach().requires_grad_() for x in (q, k, v))
    o = attention(q, k, v, mask)
    return [o.detach(), *torch.autograd.grad(o, (q, k, v), do.double())]
