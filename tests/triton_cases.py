"""Attention over poisoned buffers: a case, its tensors, and what the fp64 twin makes of them.

Everything that a kernel must not read is NaN: rows in no run, keys that no row sees, and memory around the keys. What
it must not write holds random numbers, and is compared bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.kernels.spans import Bounds
from ring_worker.attention.schedule import Run

TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # of the largest expected value
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    runs: tuple[Run, ...]
    rows: int = 100
    keys: int = 110
    heads: int = 2
    key_heads: int = 1
    head_size: int = 16
    dtype: torch.dtype = torch.float32
    spread: float = 1.0  # of queries and keys: scores grow with its square
    batch: int = 1
    softcap: float | None = None
    value_size: int | None = None  # None: the head size

    @property
    def values(self) -> int:
        return self.value_size or self.head_size

    @property
    def scale(self) -> float:
        return self.head_size**-0.5


@dataclass(frozen=True)
class Tensors:
    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    live: Tensor  # bool [rows]: in a run
    seen: Tensor  # bool [keys]: read by some row


def tensors(case: Case, seed: int = 0) -> Tensors:
    """Keys and values are views into one token-major buffer [keys + 7, batch, key heads, head size + value size]."""
    draw = torch.Generator().manual_seed(seed)
    bounds = Bounds.of(case.runs, case.rows, case.keys)
    live, seen = torch.from_numpy(bounds.hi > bounds.lo), torch.from_numpy(np.array(bounds.seen))
    sizes = (case.head_size, case.values)
    q, do = (torch.randn(case.rows, case.batch, case.heads, size, generator=draw) for size in sizes)
    kv = torch.randn(case.keys + 7, case.batch, case.key_heads, sum(sizes), generator=draw)
    q, kv[..., : sizes[0]] = q * case.spread, kv[..., : sizes[0]] * case.spread
    q[~live], do[~live] = torch.nan, torch.nan
    kv[3 : 3 + case.keys][~seen] = torch.nan
    kv[:3], kv[3 + case.keys :] = torch.nan, torch.nan
    kv = kv.to(DEVICE, case.dtype)[3 : 3 + case.keys].permute(1, 2, 0, 3)
    q, do = (x.to(DEVICE, case.dtype).permute(1, 2, 0, 3) for x in (q, do))
    return Tensors(q, kv[..., : sizes[0]], kv[..., sizes[0] :], do, live.to(DEVICE), seen.to(DEVICE))


def twin(case: Case) -> Case:
    return replace(case, dtype=torch.float64)


def doubled(x: Tensors) -> Tensors:
    return Tensors(*(t.double() for t in (x.q, x.k, x.v, x.do)), x.live, x.seen)


def block(case: Case, x: Tensors) -> Block:
    return Block(x.k, x.v, case.runs, case.scale, case.softcap)


def scattered(shape: tuple[int, ...], filled: Tensor, seed: int) -> Tensor:
    """fp32, rows with strides of their own (token-major), random."""
    draw = torch.Generator().manual_seed(seed)
    batch, heads, rows, *rest = shape
    assert rows == len(filled)
    return torch.randn(rows, batch, heads, *rest, generator=draw).to(DEVICE).movedim(0, 2)


def carried(case: Case, x: Tensors, fresh: bool) -> Carry:
    """The state before the block. Rows in a run: empty or from an earlier block; others: numbers to be left alone."""
    shape = (case.batch, case.heads, case.rows)
    state = Carry(*(scattered(s, x.live, i) for i, s in enumerate(((*shape, case.values), shape, shape))))
    if fresh:
        state.acc[:, :, x.live], state.m[:, :, x.live], state.l[:, :, x.live] = 0.0, -torch.inf, 0.0
    else:
        state.l.abs_()
    return state


def same_state(state: Carry, dtype: torch.dtype) -> Carry:
    return Carry(*(t.to(dtype, copy=True) for t in (state.acc, state.m, state.l)))


def saved_for(case: Case, x: Tensors) -> tuple[Saved, Saved]:
    """For the kernel and for the twin: over this block and an earlier one. lse and delta of rows in no run are NaN."""
    exact = doubled(x)
    state = same_state(carried(case, x, fresh=False), torch.float64)
    ReferenceKernel().forward(exact.q, block(case, exact), state)
    o, lse = state.finish()
    delta = (exact.do * o).sum(-1)
    lse[:, :, ~x.live] = torch.nan
    return Saved(x.q, o.to(case.dtype), x.do, lse.float(), delta.float()), Saved(exact.q, o, exact.do, lse, delta)


def gradients(case: Case, x: Tensors) -> Gradients:
    q_shape = (case.batch, case.heads, case.rows, case.head_size)
    k_shape = (case.batch, case.key_heads, case.keys, case.head_size)
    v_shape = (*k_shape[:3], case.values)
    return Gradients(scattered(q_shape, x.live, 5), scattered(k_shape, x.seen, 6), scattered(v_shape, x.seen, 7))


def assert_close(name: str, found: Tensor, expected: Tensor, case: Case) -> None:
    assert not found.isnan().any(), f"{name} has NaN"
    some = expected.isfinite()
    assert torch.equal(found.isfinite(), some), f"{name}: infinities differ"
    largest = max(1.0, float(expected[some].abs().max())) if some.any() else 1.0
    error = float((found.double() - expected)[some].abs().max()) if some.any() else 0.0
    assert error <= TOLERANCE[case.dtype] * largest, f"{name}: error {error:.3g} at a largest value of {largest:.3g}"
