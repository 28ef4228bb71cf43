"""The attention kernels that are compared: a table of names, how each is made, and why one is missing.

Each is a differentiable function (q [B, H, S, D], k and v [B, G, S, D]) -> o [B, H, S, D], so that all are called,
timed and checked in one way. Ours runs as a ring of one does: an fp32 state is made, carried and finished, and the fp32
gradients are made and rounded at the end; all of that counts into its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ring_worker.attention import CAUSAL, FULL, Layout, loop_attention, virtual_rings
from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Kernel, Saved, state_dtype
from ring_worker.attention.kernels.library import BACKENDS, LibraryKernel
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.schedule import Run

PLAIN_LONGEST = 1024

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Problem:
    """Self-attention of `length` tokens, batch 1. `backward`: time and check that, too."""

    length: int
    head_size: int
    causal: bool
    heads: int
    key_heads: int
    dtype: torch.dtype
    device: torch.device
    backward: bool = True

    @property
    def pairs(self) -> int:
        return self.length * (self.length + 1) // 2 if self.causal else self.length**2

    @property
    def forward_flops(self) -> int:
        """Two matrix products of 2 FLOPs an element; a backward pass has five, hence 2.5 times as many."""
        return 4 * self.pairs * self.head_size * self.heads


@dataclass(frozen=True, slots=True)
class Candidate:
    """`why_not(problem)`: why it cannot run there, None where it can. `ours` is not among those to beat."""

    name: str
    ours: bool
    make: Callable[[Problem], Attention]
    why_not: Callable[[Problem], str | None]


class _Single(torch.autograd.Function):
    """One of our kernels over the whole sequence."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, run: Run) -> Tensor:
        carry = Carry.empty(q)
        kernel.forward(q, _block(k, v, run), carry)
        o, lse = carry.finish()
        o = o.to(q.dtype)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.kernel, ctx.run = kernel, run
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, lse = ctx.saved_tensors
        delta = (do.to(lse.dtype) * o.to(lse.dtype)).sum(-1)
        sums = Gradients(*(torch.zeros_like(x, dtype=state_dtype(q.dtype)) for x in (q, k, v)))
        ctx.kernel.backward(Saved(q, o, do, lse, delta), _block(k, v, ctx.run), sums)
        return sums.dq.to(q.dtype), sums.dk.to(k.dtype), sums.dv.to(v.dtype), None, None


def _block(k: Tensor, v: Tensor, run: Run) -> Block:
    return Block(k, v, (run,), k.shape[-1] ** -0.5)


def _single(kernel: Kernel, problem: Problem) -> Attention:
    n = problem.length
    run = Run(0, n, 0, 1, 0, 1) if problem.causal else Run(0, n, 0, n, 0, 0)
    return lambda q, k, v: _Single.apply(q, k, v, kernel, run)


def _own(problem: Problem) -> Attention:
    return _single(choose(problem.device, problem.dtype), problem)


def _plain(problem: Problem) -> Attention:
    return _single(ReferenceKernel(), problem)


def _ring_of_eight(problem: Problem) -> Attention:
    """The same kernel by eight virtual ranks in a loop on this device: a ring's whole arithmetic and packing."""
    rings = virtual_rings(Layout("zigzag", problem.length, 8))
    return partial(loop_attention, rings=rings, mask=CAUSAL if problem.causal else FULL)


def _library(backend: str) -> Callable[[Problem], Attention]:
    return lambda problem: _single(LibraryKernel(backend, choose(problem.device, problem.dtype)), problem)


def _torch(backend: SDPBackend) -> Callable[[Problem], Attention]:
    def make(problem: Problem) -> Attention:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel([backend]):
                return scaled_dot_product_attention(q, k, v, is_causal=problem.causal, enable_gqa=True)

        return attend

    return make


def _flex(problem: Problem) -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    n = problem.length
    # Compiled: uncompiled it makes the whole mask, which at 256K tokens is 64 GiB.
    make_mask = torch.compile(create_block_mask)
    mask = make_mask(_earlier, None, None, n, n, device=problem.device) if problem.causal else None
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def _earlier(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
    return row >= key


def _anywhere(problem: Problem) -> str | None:
    return None


def _only_on_the_cpu(problem: Problem) -> str | None:
    return None if problem.device.type == "cpu" else "compared on the CPU only"


def _only_on_a_gpu(problem: Problem) -> str | None:
    return None if problem.device.type == "cuda" else "compared on a GPU only"


def _only_short_on_the_cpu(problem: Problem) -> str | None:
    if problem.length > PLAIN_LONGEST:
        return f"takes too long past {PLAIN_LONGEST} tokens"
    return _only_on_the_cpu(problem)


def _where(backend: str) -> Callable[[Problem], str | None]:
    why_not = BACKENDS[backend].why_not
    return lambda problem: why_not(problem.device, problem.dtype, problem.head_size, problem.head_size)


CANDIDATES = (
    Candidate("ours", True, _own, _anywhere),
    Candidate("ours, by cudnn", True, _library("cudnn"), _where("cudnn")),
    Candidate("ours, by flash", True, _library("flash"), _where("flash")),
    Candidate("ring of 8 in a loop", True, _ring_of_eight, _anywhere),
    Candidate("plain twin", True, _plain, _only_short_on_the_cpu),
    Candidate("torch on the CPU", False, _torch(SDPBackend.FLASH_ATTENTION), _only_on_the_cpu),
    Candidate("torch flash", False, _torch(SDPBackend.FLASH_ATTENTION), _where("flash")),
    Candidate("torch cudnn", False, _torch(SDPBackend.CUDNN_ATTENTION), _where("cudnn")),
    Candidate("flex, compiled", False, _flex, _only_on_a_gpu),
)
