"""Runs through torch's own CPU flash kernel, which returns the log-sum-exp and takes a given one in its backward.

A rectangle is one call; a triangle one causal call, with a second for the rectangle before it; a band is cut into tiles
with an additive mask. The kernel computes in its inputs' dtype, so half precision is raised to fp32 first: partial
outputs must not be rounded, or the error grows with the ring. Grouped heads are the kernel's own. What it has no notion
of, the soft cap and values of another head size, goes to the plain blockwise twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved, state_dtype
from ring_worker.attention.kernels.reference import ReferenceKernel, tiles, visible
from ring_worker.attention.layout import Range
from ring_worker.attention.schedule import Run

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

BAND_ROWS = 128


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the kernel: these rows over these keys, all, causal from the first of both, or under a mask."""

    rows: slice
    keys: slice
    causal: bool = False
    mask: Tensor | None = None


class CpuFlashKernel:
    """See `Kernel`. For fp32, bf16 and fp16 on the CPU."""

    name = "cpu-flash"

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        if _needs_twin(block):
            return ReferenceKernel().forward(q_BHQD, block, carry)
        q, k, v = (_raised(x) for x in (q_BHQD, block.k, block.v))
        for call in _calls(block.runs):
            rows, keys = call.rows, call.keys
            o, lse = _forward(
                q[:, :, rows], k[:, :, keys], v[:, :, keys], 0.0, call.causal, attn_mask=call.mask, scale=block.scale
            )
            carry.absorb(rows.start, rows.stop, o, lse)
        return None

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        if _needs_twin(block):
            return ReferenceKernel().backward(saved, block, gradients)
        q, do, k, v = (_raised(x) for x in (saved.q, saved.do, block.k, block.v))
        o = _output_for(do, saved.delta) if saved.o is None else _raised(saved.o)
        for call in _calls(block.runs):
            rows, keys = call.rows, call.keys
            dq, dk, dv = _backward(
                do[:, :, rows],
                q[:, :, rows],
                k[:, :, keys],
                v[:, :, keys],
                o[:, :, rows],
                saved.lse[:, :, rows],
                0.0,
                call.causal,
                attn_mask=call.mask,
                scale=block.scale,
            )
            gradients.dq[:, :, rows] += dq
            gradients.dk[:, :, keys] += dk
            gradients.dv[:, :, keys] += dv
        return None


def _needs_twin(block: Block) -> bool:
    return block.softcap is not None or block.k.shape[-1] != block.v.shape[-1]


def _output_for(do: Tensor, delta: Tensor) -> Tensor:
    """Some output with this delta: torch's kernel takes o, and makes nothing but delta = rowsum(do * o) of it."""
    length = do.square().sum(-1)
    return do * torch.where(length > 0, delta / length, 0)[..., None]


def _raised(x: Tensor) -> Tensor:
    return x.to(state_dtype(x.dtype))


def _calls(runs: Sequence[Run]) -> Iterator[_Call]:
    for run in runs:
        rows = slice(run.start, run.stop)
        if (run.lo_step, run.hi_step) == (0, 0):
            yield _Call(rows, slice(run.lo, run.hi))
        elif (run.lo_step, run.hi_step) == (0, 1):
            yield from _triangle(run, rows)
        else:
            yield from (_tile(tile) for tile in tiles([run], BAND_ROWS))


def _triangle(run: Run, rows: slice) -> Iterator[_Call]:
    """Row i sees up to key hi - 1 + i: a rectangle up to hi - 1, and a causal square from there."""
    corner = run.hi - 1
    if corner > run.lo:
        yield _Call(rows, slice(run.lo, corner))
    yield _Call(rows, slice(corner, corner + run.rows), causal=True)


def _tile(run: Run) -> _Call:
    hidden = ~visible(run, torch.device("cpu"))
    mask = torch.zeros(hidden.shape, dtype=torch.float32).masked_fill_(hidden, -torch.inf)
    return _Call(slice(run.start, run.stop), _slice(run.keys), mask=mask)


def _slice(keys: Range) -> slice:
    return slice(keys.start, keys.stop)
