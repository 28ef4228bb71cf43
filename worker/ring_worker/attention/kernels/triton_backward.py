"""The backward kernels: dq by tiles of query rows, dk and dv by tiles of keys, both added to what is there.

Probabilities are made again from the scores and the log-sum-exp over the whole sequence, so blocks are independent. The
dk/dv kernel walks over the rows of every head of the group, which needs no atomic addition: the same bits each time.
`spans` says which steps need a mask, as in the forward kernel. The launcher hands in the log-sum-exp in units of log2
and delta times the scale, so that no step converts them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ring_worker.attention.kernels.triton_tiles import (
    LOG2E,
    Rows,
    Score,
    Seen,
    add_product,
    alive_at,
    bounds_at,
    cap_slope,
    capped,
    dims_of,
    held,
    load_tile,
    moved,
    piece_of,
    product,
    rows_at,
    store_tile,
    tile_at,
)


@triton.jit
def probabilities(s, score, lse, visible, CAPPED: tl.constexpr):
    """Of raw products `s`. `lse` in units of log2, shaped to go with s; `visible` None for all."""
    x = capped(s, score) if CAPPED else s * (score.scale * LOG2E)
    p = tl.exp2(x - lse)
    return p if visible is None else tl.where(visible, p, 0.0)


@triton.jit
def product_gradients(s, p, dp, score, delta, CAPPED: tl.constexpr):
    """Gradients of the products `s`. `delta` holds the scale."""
    ds = p * (dp * score.scale - delta)
    return ds * cap_slope(s, score) if CAPPED else ds


@triton.jit
def dq_step(
    dq, q, do, live, k, v, alive, score, lse, delta, visible,
    QK: tl.constexpr, VO: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """Add one step's share of dq. `visible` [rows, keys], None for all; q, do as `held` gave them."""
    s = product(q, live, k, alive, QK, PRECISION, HELD)
    p = probabilities(s, score, lse[:, None], visible, CAPPED)
    dp = product(do, live, v, alive, VO, PRECISION, HELD)
    ds = product_gradients(s, p, dp, score, delta[:, None], CAPPED)
    return add_product(dq, ds, k, alive, QK, PRECISION, HELD)


@triton.jit
def dq_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dq: Rows, seen: Seen, score: Score, heads, group,
    D: tl.constexpr, E: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr, WIDEST: tl.constexpr,
):  # fmt: skip
    """One tile of query rows of one head. Grid: (batch x heads, rows of the table)."""
    QK: tl.constexpr = dims_of(D, WIDEST)
    VO: tl.constexpr = dims_of(E, WIDEST)
    batch, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    key_head = head // group
    entry = seen.table + tl.program_id(1) * 5
    row_start = tl.load(entry) * BLOCK_Q
    start, before, full, steps = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)

    row = row_start + tl.arange(0, BLOCK_Q)
    lo, hi = bounds_at(seen, row)
    live = hi > lo
    q_tile = held(tile_at(q, batch, head, row_start, QK, BLOCK_Q), live, QK, HELD)
    tl.debug_barrier()  # one tile after the other: all at once would not fit into registers
    do_tile = held(tile_at(do, batch, head, row_start, VO, BLOCK_Q), live, VO, HELD)
    tl.debug_barrier()
    lse_row = tl.load(rows_at(lse, batch, head, row_start, BLOCK_Q), mask=live, other=0.0)
    delta_row = tl.load(rows_at(delta, batch, head, row_start, BLOCK_Q), mask=live, other=0.0)
    dq_tile = load_tile(tile_at(dq, batch, head, row_start, QK, BLOCK_Q), live, QK)

    if STEPS != "masked":
        k_place = tile_at(k, batch, key_head, start + before * BLOCK_K, QK, BLOCK_K)
        v_place = tile_at(v, batch, key_head, start + before * BLOCK_K, VO, BLOCK_K)
        for _ in range(full):
            k_tile, v_tile = held(k_place, None, QK, HELD), held(v_place, None, VO, HELD)
            dq_tile = dq_step(
                dq_tile, q_tile, do_tile, live, k_tile, v_tile, None, score, lse_row, delta_row, None,
                QK, VO, CAPPED, PRECISION, HELD,
            )  # fmt: skip
            k_place, v_place = moved(k_place, BLOCK_K * k.row), moved(v_place, BLOCK_K * v.row)
    if STEPS != "full":
        PIECE: tl.constexpr = piece_of(BLOCK_K)
        TURNS: tl.constexpr = BLOCK_K // PIECE
        for masked in tl.range(TURNS * (steps - full), num_stages=1):
            key_start = start + tl.where(masked < TURNS * before, 0, full) * BLOCK_K + masked * PIECE
            key = key_start + tl.arange(0, PIECE)
            alive = alive_at(seen, key)
            k_tile = held(tile_at(k, batch, key_head, key_start, QK, PIECE), alive, QK, HELD)
            v_tile = held(tile_at(v, batch, key_head, key_start, VO, PIECE), alive, VO, HELD)
            lo, hi = bounds_at(seen, row, AGAIN=True)
            visible = (key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None])
            dq_tile = dq_step(
                dq_tile, q_tile, do_tile, live, k_tile, v_tile, alive, score, lse_row, delta_row, visible,
                QK, VO, CAPPED, PRECISION, HELD,
            )  # fmt: skip

    row_start = tl.load(entry, volatile=True) * BLOCK_Q
    lo, hi = bounds_at(seen, row_start + tl.arange(0, BLOCK_Q), AGAIN=True)
    store_tile(tile_at(dq, batch, head, row_start, QK, BLOCK_Q), dq_tile, hi > lo, QK)


@triton.jit
def dkdv_step(
    dk, dv, k, v, alive, q, do, live, score, lse, delta, visible, QK: tl.constexpr, VO: tl.constexpr,
    CAPPED: tl.constexpr, PRECISION: tl.constexpr, HELD: tl.constexpr, GRADIENTS: tl.constexpr,
):  # fmt: skip
    """Add one step's share of dk and dv. Scores stand with keys first; `visible` [keys, rows], None for all.

    k, v as `held` gave them.
    """
    s = product(k, alive, q, live, QK, PRECISION, HELD)
    p = probabilities(s, score, lse[None, :], visible, CAPPED)
    if GRADIENTS != "dk":
        dv = add_product(dv, p, do, live, VO, PRECISION, HELD)
    if GRADIENTS != "dv":
        dp = product(v, alive, do, live, VO, PRECISION, HELD)
        ds = product_gradients(s, p, dp, score, delta[None, :], CAPPED)
        dk = add_product(dk, ds, q, live, QK, PRECISION, HELD)
    return dk, dv


@triton.jit
def dkdv_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dk: Rows, dv: Rows, seen: Seen, score: Score,
    heads, group, D: tl.constexpr, E: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr, WIDEST: tl.constexpr,
    GRADIENTS: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one key head, over the rows of its group's query heads. Grid: (batch x key heads, table)."""
    QK: tl.constexpr = dims_of(D, WIDEST)
    VO: tl.constexpr = dims_of(E, WIDEST)
    key_heads = heads // group
    batch, key_head = tl.program_id(0) // key_heads, tl.program_id(0) % key_heads
    first_head = key_head * group
    entry = seen.table + tl.program_id(1) * 5
    key_start = tl.load(entry) * BLOCK_K
    start, before, full, steps = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)

    key = key_start + tl.arange(0, BLOCK_K)
    alive = alive_at(seen, key)
    k_tile = held(tile_at(k, batch, key_head, key_start, QK, BLOCK_K), alive, QK, HELD)
    tl.debug_barrier()  # one tile after the other: all at once would not fit into registers
    v_tile = tile_at(v, batch, key_head, key_start, VO, BLOCK_K)
    if GRADIENTS != "dv":
        v_tile = held(v_tile, alive, VO, HELD)
        tl.debug_barrier()
    dk_tile, dv_tile = k_tile, v_tile  # what is not asked for is never read
    if GRADIENTS != "dv":
        dk_tile = load_tile(tile_at(dk, batch, key_head, key_start, QK, BLOCK_K), alive, QK)
        tl.debug_barrier()
    if GRADIENTS != "dk":
        dv_tile = load_tile(tile_at(dv, batch, key_head, key_start, VO, BLOCK_K), alive, VO)

    if STEPS != "masked":
        row_start = start + before * BLOCK_Q
        q_place = tile_at(q, batch, first_head, row_start, QK, BLOCK_Q)
        do_place = tile_at(do, batch, first_head, row_start, VO, BLOCK_Q)
        lse_place = rows_at(lse, batch, first_head, row_start, BLOCK_Q)
        delta_place = rows_at(delta, batch, first_head, row_start, BLOCK_Q)
        q_jump, do_jump = to_next_head(q, full, BLOCK_Q), to_next_head(do, full, BLOCK_Q)
        lse_jump, delta_jump = to_next_head(lse, full, BLOCK_Q), to_next_head(delta, full, BLOCK_Q)
        left = full
        # one loop over heads and steps, so that accumulators stay where products leave them
        for _ in range(group * full):
            q_tile, do_tile = held(q_place, None, QK, HELD), held(do_place, None, VO, HELD)
            lse_row, delta_row = tl.load(lse_place), tl.load(delta_place)
            dk_tile, dv_tile = dkdv_step(
                dk_tile, dv_tile, k_tile, v_tile, alive, q_tile, do_tile, None, score, lse_row, delta_row, None,
                QK, VO, CAPPED, PRECISION, HELD, GRADIENTS,
            )  # fmt: skip
            left -= 1
            last = left == 0
            left = tl.where(last, full, left)
            q_place = moved(q_place, tl.where(last, q_jump, BLOCK_Q * q.row))
            do_place = moved(do_place, tl.where(last, do_jump, BLOCK_Q * do.row))
            lse_place += tl.where(last, lse_jump, BLOCK_Q * lse.row)
            delta_place += tl.where(last, delta_jump, BLOCK_Q * delta.row)
    if STEPS != "full":
        PIECE: tl.constexpr = piece_of(BLOCK_Q)
        TURNS: tl.constexpr = BLOCK_Q // PIECE
        pieces = TURNS * (steps - full)
        for turn in tl.range(group * pieces, num_stages=1):
            head = first_head + turn // pieces
            masked = turn % pieces
            row_start = start + tl.where(masked < TURNS * before, 0, full) * BLOCK_Q + masked * PIECE
            row = row_start + tl.arange(0, PIECE)
            lo, hi = bounds_at(seen, row)
            live = hi > lo
            q_tile = held(tile_at(q, batch, head, row_start, QK, PIECE), live, QK, HELD)
            do_tile = held(tile_at(do, batch, head, row_start, VO, PIECE), live, VO, HELD)
            lse_row = tl.load(rows_at(lse, batch, head, row_start, PIECE), mask=live, other=0.0)
            delta_row = tl.load(rows_at(delta, batch, head, row_start, PIECE), mask=live, other=0.0)
            visible = (key[:, None] >= lo[None, :]) & (key[:, None] < hi[None, :])
            dk_tile, dv_tile = dkdv_step(
                dk_tile, dv_tile, k_tile, v_tile, alive, q_tile, do_tile, live, score, lse_row, delta_row, visible,
                QK, VO, CAPPED, PRECISION, HELD, GRADIENTS,
            )  # fmt: skip

    key_start = tl.load(entry, volatile=True) * BLOCK_K
    alive = alive_at(seen, key_start + tl.arange(0, BLOCK_K), AGAIN=True)
    if GRADIENTS != "dv":
        store_tile(tile_at(dk, batch, key_head, key_start, QK, BLOCK_K), dk_tile, alive, QK)
        tl.debug_barrier()
    if GRADIENTS != "dk":
        store_tile(tile_at(dv, batch, key_head, key_start, VO, BLOCK_K), dv_tile, alive, VO)


@triton.jit
def to_next_head(x, full, BLOCK_Q: tl.constexpr):
    """Elements from the last of `full` steps in one head to the first one in the next."""
    return x.head - (full - 1).to(tl.int64) * (BLOCK_Q * x.row)
