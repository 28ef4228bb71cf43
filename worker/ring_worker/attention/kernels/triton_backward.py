"""The backward kernels: dq by tiles of query rows, dk and dv by tiles of keys, both added to what is there.

Probabilities are made again from the scores and the log-sum-exp over the whole sequence, so blocks are independent. The
dk/dv kernel walks over the rows of every head of the group, which needs no atomic addition: the same bits each time.
`spans` says which steps need a mask, as in the forward kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ring_worker.attention.kernels.triton_forward import (
    LOG2E,
    Rows,
    Seen,
    alive_at,
    bounds_at,
    load_tile,
    rows_at,
    tile_at,
    tile_mask,
)


@triton.jit
def dq_step(dq, q, do, k, v, row_log2, row_delta, scale, visible):
    """Add one step's share of dq. `row_delta` holds the scale. `visible` [rows, keys], None for all."""
    s = tl.dot(q, k.T, input_precision="ieee")
    p = tl.exp2(s * (scale * LOG2E) - row_log2[:, None])
    if visible is not None:
        p = tl.where(visible, p, 0.0)
    dp = tl.dot(do, v.T, input_precision="ieee")
    ds = p * (dp * scale - row_delta[:, None])
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

    row = row_start + tl.arange(0, BLOCK_Q)
    lo, hi = bounds_at(seen, row)
    live = hi > lo
    q_tile = load_tile(q, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)
    do_tile = load_tile(do, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)
    row_log2 = tl.load(rows_at(lse, batch, head, row_start, BLOCK_Q), mask=live, other=0.0) * LOG2E
    row_delta = tl.load(rows_at(delta, batch, head, row_start, BLOCK_Q), mask=live, other=0.0) * scale
    dq_tile = load_tile(dq, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)

    for step in range(before, before + full):
        key_start = start + step * BLOCK_K
        k_tile = load_tile(k, batch, head // group, key_start, None, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v, batch, head // group, key_start, None, HEAD, WIDTH, BLOCK_K)
        dq_tile = dq_step(dq_tile, q_tile, do_tile, k_tile, v_tile, row_log2, row_delta, scale, None)
    for masked in tl.range(steps - full, num_stages=1):
        key_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_K
        key = key_start + tl.arange(0, BLOCK_K)
        alive = alive_at(seen, key)
        k_tile = load_tile(k, batch, head // group, key_start, alive, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v, batch, head // group, key_start, alive, HEAD, WIDTH, BLOCK_K)
        visible = (key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None])
        dq_tile = dq_step(dq_tile, q_tile, do_tile, k_tile, v_tile, row_log2, row_delta, scale, visible)

    lo, hi = bounds_at(seen, row, AGAIN=True)
    live = hi > lo
    tl.store(tile_at(dq, batch, head, row_start, BLOCK_Q, WIDTH), dq_tile, mask=tile_mask(live, HEAD, WIDTH))


@triton.jit
def dkdv_step(dk, dv, k, v, q, do, row_log2, row_delta, scale, visible):
    """Add one step's share of dk and dv. Scores stand with keys first; `visible` [keys, rows], None for all."""
    s = tl.dot(k, q.T, input_precision="ieee")
    p = tl.exp2(s * (scale * LOG2E) - row_log2[None, :])
    if visible is not None:
        p = tl.where(visible, p, 0.0)
    dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
    dp = tl.dot(v, do.T, input_precision="ieee")
    ds = p * (dp * scale - row_delta[None, :])
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

    key = key_start + tl.arange(0, BLOCK_K)
    alive = alive_at(seen, key)
    k_tile = load_tile(k, batch, key_head, key_start, alive, HEAD, WIDTH, BLOCK_K)
    v_tile = load_tile(v, batch, key_head, key_start, alive, HEAD, WIDTH, BLOCK_K)
    dk_tile = load_tile(dk, batch, key_head, key_start, alive, HEAD, WIDTH, BLOCK_K)
    dv_tile = load_tile(dv, batch, key_head, key_start, alive, HEAD, WIDTH, BLOCK_K)

    for turn in range(group * full):
        head = key_head * group + turn // full
        row_start = start + (before + turn % full) * BLOCK_Q
        q_tile = load_tile(q, batch, head, row_start, None, HEAD, WIDTH, BLOCK_Q)
        do_tile = load_tile(do, batch, head, row_start, None, HEAD, WIDTH, BLOCK_Q)
        row_log2 = tl.load(rows_at(lse, batch, head, row_start, BLOCK_Q)) * LOG2E
        row_delta = tl.load(rows_at(delta, batch, head, row_start, BLOCK_Q)) * scale
        dk_tile, dv_tile = dkdv_step(
            dk_tile, dv_tile, k_tile, v_tile, q_tile, do_tile, row_log2, row_delta, scale, None
        )
    for turn in tl.range(group * (steps - full), num_stages=1):
        head = key_head * group + turn // (steps - full)
        masked = turn % (steps - full)
        row_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_Q
        row = row_start + tl.arange(0, BLOCK_Q)
        lo, hi = bounds_at(seen, row)
        live = hi > lo
        q_tile = load_tile(q, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)
        do_tile = load_tile(do, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)
        row_log2 = tl.load(rows_at(lse, batch, head, row_start, BLOCK_Q), mask=live, other=0.0) * LOG2E
        row_delta = tl.load(rows_at(delta, batch, head, row_start, BLOCK_Q), mask=live, other=0.0) * scale
        visible = (key[:, None] >= lo[None, :]) & (key[:, None] < hi[None, :])
        dk_tile, dv_tile = dkdv_step(
            dk_tile, dv_tile, k_tile, v_tile, q_tile, do_tile, row_log2, row_delta, scale, visible
        )

    alive = alive_at(seen, key, AGAIN=True)
    mask = tile_mask(alive, HEAD, WIDTH)
    tl.store(tile_at(dk, batch, key_head, key_start, BLOCK_K, WIDTH), dk_tile, mask=mask)
    tl.store(tile_at(dv, batch, key_head, key_start, BLOCK_K, WIDTH), dv_tile, mask=mask)
