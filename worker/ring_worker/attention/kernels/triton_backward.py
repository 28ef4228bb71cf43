"""The backward kernels: dq by tiles of query rows, dk and dv by tiles of keys, both added to what is there.

Probabilities are made again from the scores and the log-sum-exp over the whole sequence, so blocks are independent. The
dk/dv kernel walks over the rows of every head of the group, which needs no atomic addition: the same bits each time.
`spans` says which steps need a mask, as in the forward kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ring_worker.attention.kernels.triton_forward import LOG2E, Rows, Seen, first_of, load_tile


@triton.jit
def dq_step(dq, q, do, k, v, row_log2, row_delta, scale, visible):
    """Add one step's share of dq / scale. `visible` [rows, keys], None for all."""
    s = tl.dot(q, k.T, input_precision="ieee")
    p = tl.exp2(s * (scale * LOG2E) - row_log2[:, None])
    if visible is not None:
        p = tl.where(visible, p, 0.0)
    dp = tl.dot(do, v.T, input_precision="ieee")
    ds = p * (dp - row_delta[:, None])
    return tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")


@triton.jit
def dq_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dq: Rows, seen: Seen, scale, heads, group,
    HEAD: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of query rows of one head. Grid: (batch x heads, rows of the table)."""
    batch, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    entry = seen.table + tl.program_id(1) * 5
    row_start = tl.load(entry) * BLOCK_Q
    start, before, full, steps = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)

    row, dim = row_start + tl.arange(0, BLOCK_Q), tl.arange(0, WIDTH)
    lo = tl.load(seen.lo + row, mask=row < seen.row_count, other=0)
    hi = tl.load(seen.hi + row, mask=row < seen.row_count, other=0)
    live = hi > lo
    q_tile = load_tile(first_of(q, batch, head), q.row, row_start, live, HEAD, WIDTH, BLOCK_Q)
    do_tile = load_tile(first_of(do, batch, head), do.row, row_start, live, HEAD, WIDTH, BLOCK_Q)
    row_log2 = tl.load(first_of(lse, batch, head) + row.to(tl.int64) * lse.row, mask=live, other=0.0) * LOG2E
    row_delta = tl.load(first_of(delta, batch, head) + row.to(tl.int64) * delta.row, mask=live, other=0.0)
    k_at, v_at = first_of(k, batch, head // group), first_of(v, batch, head // group)
    dq_tile = tl.zeros([BLOCK_Q, WIDTH], tl.float32)

    for step in range(before, before + full):
        key_start = start + step * BLOCK_K
        k_tile = load_tile(k_at, k.row, key_start, None, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v_at, v.row, key_start, None, HEAD, WIDTH, BLOCK_K)
        dq_tile = dq_step(dq_tile, q_tile, do_tile, k_tile, v_tile, row_log2, row_delta, scale, None)
    for masked in range(steps - full):
        key_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_K
        key = key_start + tl.arange(0, BLOCK_K)
        alive = tl.load(seen.keys + key, mask=key < seen.key_count, other=0) != 0
        k_tile = load_tile(k_at, k.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v_at, v.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
        visible = (key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None])
        dq_tile = dq_step(dq_tile, q_tile, do_tile, k_tile, v_tile, row_log2, row_delta, scale, visible)

    dq_at = first_of(dq, batch, head) + row.to(tl.int64)[:, None] * dq.row + dim[None, :]
    mask = live[:, None] & (dim[None, :] < HEAD)
    tl.store(dq_at, tl.load(dq_at, mask=mask, other=0.0) + dq_tile * scale, mask=mask)


@triton.jit
def dkdv_step(dk, dv, k, v, q, do, row_log2, row_delta, scale, visible):
    """Add one step's share of dk / scale and dv. Scores stand with keys first; `visible` [keys, rows], None for all."""
    s = tl.dot(k, q.T, input_precision="ieee")
    p = tl.exp2(s * (scale * LOG2E) - row_log2[None, :])
    if visible is not None:
        p = tl.where(visible, p, 0.0)
    dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
    dp = tl.dot(v, do.T, input_precision="ieee")
    ds = p * (dp - row_delta[None, :])
    dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def dkdv_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dk: Rows, dv: Rows, seen: Seen, scale, heads, group,
    HEAD: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one key head, over the rows of its group's query heads. Grid: (batch x key heads, table)."""
    key_heads = heads // group
    batch, key_head = tl.program_id(0) // key_heads, tl.program_id(0) % key_heads
    entry = seen.table + tl.program_id(1) * 5
    key_start = tl.load(entry) * BLOCK_K
    start, before, full, steps = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)

    key, dim = key_start + tl.arange(0, BLOCK_K), tl.arange(0, WIDTH)
    alive = tl.load(seen.keys + key, mask=key < seen.key_count, other=0) != 0
    k_tile = load_tile(first_of(k, batch, key_head), k.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
    v_tile = load_tile(first_of(v, batch, key_head), v.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
    dk_tile = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    dv_tile = tl.zeros([BLOCK_K, WIDTH], tl.float32)

    for member in range(group):
        head = key_head * group + member
        q_at, do_at = first_of(q, batch, head), first_of(do, batch, head)
        lse_at, delta_at = first_of(lse, batch, head), first_of(delta, batch, head)
        for step in range(before, before + full):
            row_start = start + step * BLOCK_Q
            row = row_start + tl.arange(0, BLOCK_Q)
            q_tile = load_tile(q_at, q.row, row_start, None, HEAD, WIDTH, BLOCK_Q)
            do_tile = load_tile(do_at, do.row, row_start, None, HEAD, WIDTH, BLOCK_Q)
            row_log2 = tl.load(lse_at + row.to(tl.int64) * lse.row) * LOG2E
            row_delta = tl.load(delta_at + row.to(tl.int64) * delta.row)
            dk_tile, dv_tile = dkdv_step(
                dk_tile, dv_tile, k_tile, v_tile, q_tile, do_tile, row_log2, row_delta, scale, None
            )
        for masked in range(steps - full):
            row_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_Q
            row = row_start + tl.arange(0, BLOCK_Q)
            lo = tl.load(seen.lo + row, mask=row < seen.row_count, other=0)
            hi = tl.load(seen.hi + row, mask=row < seen.row_count, other=0)
            live = hi > lo
            q_tile = load_tile(q_at, q.row, row_start, live, HEAD, WIDTH, BLOCK_Q)
            do_tile = load_tile(do_at, do.row, row_start, live, HEAD, WIDTH, BLOCK_Q)
            row_log2 = tl.load(lse_at + row.to(tl.int64) * lse.row, mask=live, other=0.0) * LOG2E
            row_delta = tl.load(delta_at + row.to(tl.int64) * delta.row, mask=live, other=0.0)
            visible = (key[:, None] >= lo[None, :]) & (key[:, None] < hi[None, :])
            dk_tile, dv_tile = dkdv_step(
                dk_tile, dv_tile, k_tile, v_tile, q_tile, do_tile, row_log2, row_delta, scale, visible
            )

    mask = alive[:, None] & (dim[None, :] < HEAD)
    dk_at = first_of(dk, batch, key_head) + key.to(tl.int64)[:, None] * dk.row + dim[None, :]
    dv_at = first_of(dv, batch, key_head) + key.to(tl.int64)[:, None] * dv.row + dim[None, :]
    tl.store(dk_at, tl.load(dk_at, mask=mask, other=0.0) + dk_tile * scale, mask=mask)
    tl.store(dv_at, tl.load(dv_at, mask=mask, other=0.0) + dv_tile, mask=mask)
