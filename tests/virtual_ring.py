"""A ring of virtual ranks in this process: every rank runs the real code, in turn with the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ring_worker.attention.function import loop_attention, virtual_rings
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Mask
from ring_worker.attention.ring import Ring


def through(
    rings: Sequence[Ring],
    tensors: Sequence[Tensor],
    mask: Mask,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> list[Tensor]:
    """[o, dq, dk, dv] of the whole sequence, and with sinks their gradient; `tensors` = q, k, v, do, whole."""
    *qkv, do = (x.detach() for x in tensors)
    inputs = [x.clone().requires_grad_() for x in (*qkv, *([sinks.detach()] if sinks is not None else []))]
    last = inputs[3] if sinks is not None else None
    o = loop_attention(*inputs[:3], rings, mask, softcap=softcap, sinks=last)
    return [o.detach(), *torch.autograd.grad(o, inputs, do)]


def ring_and_gradients(
    tensors: Sequence[Tensor],
    mask: Mask,
    layout: Layout,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    **options: Any,
) -> list[Tensor]:
    """The same, by a new ring. `options`: those of `Ring`."""
    return through(virtual_rings(layout, **options), tensors, mask, softcap=softcap, sinks=sinks)
