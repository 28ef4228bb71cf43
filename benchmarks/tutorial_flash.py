"""The yardstick: attention as a Triton tutorial has it, FlashAttention-2 (arXiv 2307.08691) without anything of a ring.

Forward from an empty state to finished outputs and log-sum-exps; backward dq and dk, dv in loops of their own, with the
log-sum-exp already in units of log2, the keys already scaled, and gradients written, not added. No masks, no grouped
heads, no soft cap, head sizes that are powers of two. Never shipped, never run in training: `benchmarks.kernels`
compiles it beside ours, to see whether the carried state and the masks cost the inner loop anything.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ring_worker.attention.kernels.triton_tiles import LOG2E, Rows, part_at, rows_at


@triton.jit
def forward_kernel(
    q: Rows, k: Rows, v: Rows, o: Rows, lse: Rows, scale, heads, count,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Attention of BLOCK_Q queries of one head over `count` keys, a multiple of BLOCK_K."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row_start = tl.program_id(0) * BLOCK_Q
    q_tile = tl.load(part_at(q, batch, head, row_start, 0, D, BLOCK_Q))
    m = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.full([BLOCK_Q], 1.0, tl.float32)
    acc = tl.zeros([BLOCK_Q, E], tl.float32)
    zero = row_start * 0
    k_place, v_place = part_at(k, batch, head, zero, 0, D, BLOCK_K), part_at(v, batch, head, zero, 0, E, BLOCK_K)
    factor = scale * LOG2E
    for _ in tl.range(0, count, BLOCK_K):
        s = tl.dot(q_tile, tl.load(k_place).T)
        top = tl.maximum(m, tl.max(s, 1) * factor)
        p = tl.exp2(s * factor - top[:, None])
        old = tl.exp2(m - top)
        total = total * old + tl.sum(p, 1)
        acc = tl.dot(p.to(q_tile.dtype), tl.load(v_place), acc * old[:, None])
        m = top
        k_place += BLOCK_K * k.row
        v_place += BLOCK_K * v.row
    tl.store(rows_at(lse, batch, head, row_start, BLOCK_Q), m + tl.log2(total))
    tl.store(part_at(o, batch, head, row_start, 0, E, BLOCK_Q), (acc / total[:, None]).to(q_tile.dtype))


@triton.jit
def dkdv_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dk: Rows, dv: Rows, scale, heads, count,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK_K keys of one head over `count` queries. `k` holds scale * log2(e), `lse` is of log2."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    key_start = tl.program_id(0) * BLOCK_K
    k_tile = tl.load(part_at(k, batch, head, key_start, 0, D, BLOCK_K))
    v_tile = tl.load(part_at(v, batch, head, key_start, 0, E, BLOCK_K))
    dk_tile, dv_tile = tl.zeros([BLOCK_K, D], tl.float32), tl.zeros([BLOCK_K, E], tl.float32)
    zero = key_start * 0
    q_place, do_place = part_at(q, batch, head, zero, 0, D, BLOCK_Q), part_at(do, batch, head, zero, 0, E, BLOCK_Q)
    lse_place, delta_place = rows_at(lse, batch, head, zero, BLOCK_Q), rows_at(delta, batch, head, zero, BLOCK_Q)
    for _ in tl.range(0, count, BLOCK_Q):
        q_tile, do_tile = tl.load(q_place), tl.load(do_place)
        p = tl.exp2(tl.dot(k_tile, q_tile.T) - tl.load(lse_place)[None, :])
        dv_tile = tl.dot(p.to(do_tile.dtype), do_tile, dv_tile)
        ds = p * (tl.dot(v_tile, do_tile.T) - tl.load(delta_place)[None, :])
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile)
        q_place += BLOCK_Q * q.row
        do_place += BLOCK_Q * do.row
        lse_place += BLOCK_Q * lse.row
        delta_place += BLOCK_Q * delta.row
    tl.store(part_at(dk, batch, head, key_start, 0, D, BLOCK_K), dk_tile * scale)
    tl.store(part_at(dv, batch, head, key_start, 0, E, BLOCK_K), dv_tile)


@triton.jit
def dq_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dq: Rows, heads, count,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK_Q queries of one head over `count` keys. `k` and `lse` as in `dkdv_kernel`."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row_start = tl.program_id(0) * BLOCK_Q
    q_tile = tl.load(part_at(q, batch, head, row_start, 0, D, BLOCK_Q))
    do_tile = tl.load(part_at(do, batch, head, row_start, 0, E, BLOCK_Q))
    lse_row = tl.load(rows_at(lse, batch, head, row_start, BLOCK_Q))
    delta_row = tl.load(rows_at(delta, batch, head, row_start, BLOCK_Q))
    dq_tile = tl.zeros([BLOCK_Q, D], tl.float32)
    zero = row_start * 0
    k_place, v_place = part_at(k, batch, head, zero, 0, D, BLOCK_K), part_at(v, batch, head, zero, 0, E, BLOCK_K)
    for _ in tl.range(0, count, BLOCK_K):
        k_tile, v_tile = tl.load(k_place), tl.load(v_place)
        p = tl.exp2(tl.dot(q_tile, k_tile.T) - lse_row[:, None])
        ds = p * (tl.dot(do_tile, v_tile.T) - delta_row[:, None])
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile)
        k_place += BLOCK_K * k.row
        v_place += BLOCK_K * v.row
    tl.store(part_at(dq, batch, head, row_start, 0, D, BLOCK_Q), dq_tile * (1 / LOG2E))
