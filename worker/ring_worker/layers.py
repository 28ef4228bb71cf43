"""The pieces of a Llama block that are not attention: the norm, and the gated feed-forward in chunks.

Both write their own backward pass, for what torch would keep. A norm keeps its input and one number a token. The
feed-forward of a long shard would keep three tensors of its inner width, which is the widest of the model; beyond
`chunk` tokens it keeps its input alone and computes each chunk again when its gradient is due, so that its memory does
not depend on the length of the sequence, and it adds up the weights' gradients in fp32 whatever the chunks' dtype.
Shards no longer than a chunk take the direct way, without computing anything twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm, silu

from ring_worker.rounding import add_product, compute_dtype, sum_dtype, without_autocast


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dim, computed in fp32 at least (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:  # one kernel there; here torch composes it of many
            return rms_norm(x, list(self.weight.shape), self.weight.to(x.dtype), self.eps)
        normed: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=sum_dtype(x.dtype))
        inverse: Tensor = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (x * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, inverse, weight = ctx.saved_tensors
        fine_x, fine_grad = x.to(inverse.dtype), grad.to(inverse.dtype)
        product = (fine_grad * fine_x).reshape(-1, x.shape[-1])
        grad_weight = product.t() @ inverse.view(-1)
        along_x = (product @ weight).view(inverse.shape).mul_(inverse.pow(3)).div_(x.shape[-1])
        grad_x = (fine_grad * weight).mul_(inverse).addcmul_(fine_x, along_x, value=-1)
        return grad_x.to(x.dtype), grad_weight, None


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)), arXiv 2002.05202. `chunk`: tokens computed at a time."""

    def __init__(self, hidden: int, inner: int, chunk: int) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"feed_forward_chunk: {chunk} tokens, but must be at least 1")
        self.gate = nn.Linear(hidden, inner, bias=False)
        self.up = nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.chunk = chunk

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        if rows.shape[0] <= self.chunk:
            gated: Tensor = _SwiGLU.apply(self.gate(x), self.up(x))
            return cast(Tensor, self.down(gated))
        weights = (self.gate.weight, self.up.weight, self.down.weight)
        out: Tensor = _ChunkedFeedForward.apply(rows, *weights, self.chunk)
        return out.view(x.shape)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate).mul_(up)


def _gate_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)


class _SwiGLU(torch.autograd.Function):
    """Keeps gate and up only; their silu is computed again, which is cheaper than to keep it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _gate(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return _gate_backward(grad, *ctx.saved_tensors)


class _ChunkedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(x, gate, up, down)
        ctx.chunk, ctx.dtype = chunk, compute_dtype(x)
        with without_autocast(x):
            gate, up, down = (weight.to(ctx.dtype) for weight in (gate, up, down))
            out = torch.empty(x.shape, dtype=ctx.dtype, device=x.device)
            for rows in _chunks(x.shape[0], chunk):
                part = x[rows].to(ctx.dtype)
                torch.mm(_gate(part @ gate.t(), part @ up.t()), down.t(), out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, *weights = ctx.saved_tensors
        with without_autocast(x):
            sums = [torch.zeros(w.shape, dtype=sum_dtype(ctx.dtype), device=w.device) for w in weights]
            rounded = [w.to(ctx.dtype) for w in weights]
            grad_x = torch.empty_like(x)
            for rows in _chunks(x.shape[0], ctx.chunk):
                grad_x[rows] = _chunk_backward(x[rows].to(ctx.dtype), grad[rows].to(ctx.dtype), rounded, sums)
        return grad_x, sums[0], sums[1], sums[2], None


def _chunk_backward(x: Tensor, grad: Tensor, weights: list[Tensor], sums: list[Tensor]) -> Tensor:
    """The gradient of one chunk's input; those of gate, up and down are added to `sums`."""
    gate, up, down = weights
    gate_out, up_out = x @ gate.t(), x @ up.t()
    add_product(sums[2], grad.t(), _gate(gate_out, up_out))
    grad_gate, grad_up = _gate_backward(grad @ down, gate_out, up_out)
    add_product(sums[0], grad_gate.t(), x)
    add_product(sums[1], grad_up.t(), x)
    return torch.addmm(grad_gate @ gate, grad_up, up)


def _chunks(length: int, chunk: int) -> Iterator[slice]:
    return (slice(start, start + chunk) for start in range(0, length, chunk))
