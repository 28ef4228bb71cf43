"""The forward kernel: goes on with the online softmax of one tile of query rows over the keys that they see.

In: a tile of queries and its carried state. The walk over the keys is laid out by `spans`: first the steps in which
every pair is visible, without any mask, then those before and behind, with one; the order does not matter to a softmax.
Keys that no row sees are never loaded, so neighbouring memory may hold anything.

Masked steps are walked in halves, since what a mask needs on top would spill the registers of a whole one.

Exponentials are powers of two, so inside the kernel the row maximum is in units of log2, which saves a multiplication a
row and step; at the interface it is in natural units, since the next block, maybe of another kernel, goes on from it.
Rounding the maximum in that conversion alone would weigh old keys against new ones wrongly, by |m| 2^-24 a block: what
is rounded away goes into the row sum and the accumulator (`to_log2`, `to_natural`), so nothing grows with the blocks.
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
    capped,
    dims_of,
    held,
    load_tile,
    moved,
    piece_of,
    product,
    rows_at,
    scaled,
    store_tile,
    tile_at,
)


@triton.jit
def to_log2(m):
    """(maximum in units of log2, factor that makes up for its rounding). -inf stays, with 1."""
    exact = m.to(tl.float64) * LOG2E
    rounded = exact.to(tl.float32)
    return rounded, tl.exp2(tl.where(m == -float("inf"), 0.0, (exact - rounded.to(tl.float64)).to(tl.float32)))


@triton.jit
def to_natural(m):
    """The way back, in the same form."""
    rounded = (m.to(tl.float64) * (1 / LOG2E)).to(tl.float32)
    lost = m.to(tl.float64) - rounded.to(tl.float64) * LOG2E
    return rounded, tl.exp2(tl.where(m == -float("inf"), 0.0, lost.to(tl.float32)))


@triton.jit
def softmax_step(
    x, factor, v, alive, m, l, acc,  # noqa: E741
    VO: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax over scores x * factor, in units of log2; -inf for pairs that are masked."""
    top = tl.maximum(m, tl.max(x, 1) * factor)
    base = tl.where(top == -float("inf"), 0.0, top) if MASKED else top  # a row without keys so far stays at 0 and -inf
    p = tl.exp2(x * factor - base[:, None])
    old = tl.exp2(m - base)
    return top, l * old + tl.sum(p, 1), add_product(scaled(acc, old), p, v, alive, VO, PRECISION, HELD)


@triton.jit
def forward_kernel(
    q: Rows, k: Rows, v: Rows, acc: Rows, m: Rows, l: Rows, seen: Seen, score: Score, heads, group,  # noqa: E741
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
    tl.debug_barrier()  # queries first, then the accumulator: both at once would not fit into registers
    m_row = tl.load(rows_at(m, batch, head, row_start, BLOCK_Q), mask=live, other=-float("inf"))
    l_row = tl.load(rows_at(l, batch, head, row_start, BLOCK_Q), mask=live, other=0.0)
    acc_tile = load_tile(tile_at(acc, batch, head, row_start, VO, BLOCK_Q), live, VO)
    m_row, lost = to_log2(m_row)
    l_row, acc_tile = l_row * lost, scaled(acc_tile, lost)
    factor = 1.0 if CAPPED else score.scale * LOG2E

    if STEPS != "masked":
        k_place = tile_at(k, batch, key_head, start + before * BLOCK_K, QK, BLOCK_K)
        v_place = tile_at(v, batch, key_head, start + before * BLOCK_K, VO, BLOCK_K)
        for _ in range(full):
            x = product(q_tile, live, held(k_place, None, QK, HELD), None, QK, PRECISION, HELD)
            if CAPPED:
                x = capped(x, score)
            v_tile = held(v_place, None, VO, HELD)
            m_row, l_row, acc_tile = softmax_step(
                x, factor, v_tile, None, m_row, l_row, acc_tile, VO, False, PRECISION, HELD
            )
            k_place, v_place = moved(k_place, BLOCK_K * k.row), moved(v_place, BLOCK_K * v.row)
    if STEPS != "full":
        PIECE: tl.constexpr = piece_of(BLOCK_K)
        TURNS: tl.constexpr = BLOCK_K // PIECE
        for masked in tl.range(TURNS * (steps - full), num_stages=1):
            key_start = start + tl.where(masked < TURNS * before, 0, full) * BLOCK_K + masked * PIECE
            key = key_start + tl.arange(0, PIECE)
            alive = alive_at(seen, key)
            k_tile = held(tile_at(k, batch, key_head, key_start, QK, PIECE), alive, QK, HELD)
            x = product(q_tile, live, k_tile, alive, QK, PRECISION, HELD)
            if CAPPED:
                x = capped(x, score)
            lo, hi = bounds_at(seen, row, AGAIN=True)
            x = tl.where((key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None]), x, -float("inf"))
            alive = alive_at(seen, key, AGAIN=True)
            v_tile = held(tile_at(v, batch, key_head, key_start, VO, PIECE), alive, VO, HELD)
            m_row, l_row, acc_tile = softmax_step(
                x, factor, v_tile, alive, m_row, l_row, acc_tile, VO, True, PRECISION, HELD
            )

    row_start = tl.load(entry, volatile=True) * BLOCK_Q  # anew, since addresses that live through the loops may spill
    lo, hi = bounds_at(seen, row_start + tl.arange(0, BLOCK_Q), AGAIN=True)
    live = hi > lo
    m_row, lost = to_natural(m_row)
    tl.store(rows_at(m, batch, head, row_start, BLOCK_Q), m_row, mask=live)
    tl.store(rows_at(l, batch, head, row_start, BLOCK_Q), l_row * lost, mask=live)
    store_tile(tile_at(acc, batch, head, row_start, VO, BLOCK_Q), scaled(acc_tile, lost), live, VO)
