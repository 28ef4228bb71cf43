"""dk and dv over full steps, with queries read through tensor descriptors: the copy engine (TMA) of sm_90 and sm_100.

A descriptor names the rows of a group's heads, and one instruction copies a tile of them; the pointers that each thread
else keeps and moves, and the instructions to move them, are gone, which is what lets a step of 64 queries at head size
128 run without spilling. Made by the program itself, in a scratch buffer of its launch. Addresses and strides must be
multiples of 16 bytes (`triton_launch.aligned`). Masked steps stay with the kernel in `triton_backward`: a tile that is
read so runs them in a launch of their own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ring_worker.attention.kernels.triton_backward import dkdv_step, to_next_head
from ring_worker.attention.kernels.triton_tiles import (
    Rows,
    Score,
    Seen,
    alive_at,
    count_of,
    dims_of,
    first_dim,
    load_tile,
    rows_at,
    size_of,
    store_tile,
    tile_at,
    width_of,
)


@triton.jit
def described(x, batch, first_head, heads, rows, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """A descriptor for each part of the rows of some heads. What is outside reads as 0."""
    base = x.at + batch.to(tl.int64) * x.batch + first_head.to(tl.int64) * x.head
    parts = ()
    for i in tl.static_range(count_of(DIMS)):
        part = tl.make_tensor_descriptor(
            base,
            shape=[heads, rows, size_of(DIMS)],
            strides=[x.head.to(tl.int64), x.row.to(tl.int64), 1],
            block_shape=[1, ROWS, width_of(DIMS, i)],
        )
        parts = parts + (part,)  # type: ignore[assignment]  # noqa: RUF005
    return parts


@triton.jit
def read(parts, head, row, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """The tile of ROWS rows of a head, part by part."""
    tile = ()
    for i in tl.static_range(count_of(DIMS)):
        part = parts[i].load([head, row, first_dim(DIMS, i)]).reshape([ROWS, width_of(DIMS, i)])
        tile = tile + (part,)  # type: ignore[assignment]  # noqa: RUF005
    return tile


@triton.jit
def dkdv_full_kernel(
    q: Rows, k: Rows, v: Rows, do: Rows, lse: Rows, delta: Rows, dk: Rows, dv: Rows, seen: Seen, score: Score,
    heads, group, D: tl.constexpr, E: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, WIDEST: tl.constexpr, GRADIENTS: tl.constexpr,
):  # fmt: skip
    """The unmasked steps of `triton_backward.dkdv_kernel`, with its arguments and its grid."""
    QK: tl.constexpr = dims_of(D, WIDEST)
    VO: tl.constexpr = dims_of(E, WIDEST)
    key_heads = heads // group
    batch, key_head = tl.program_id(0) // key_heads, tl.program_id(0) % key_heads
    first_head = key_head * group
    entry = seen.table + tl.program_id(1) * 5
    key_start = tl.load(entry) * BLOCK_K
    start, before, full = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)

    alive = alive_at(seen, key_start + tl.arange(0, BLOCK_K))
    k_tile = load_tile(tile_at(k, batch, key_head, key_start, QK, BLOCK_K), alive, QK)
    tl.debug_barrier()  # one tile after the other: all at once would not fit into registers
    v_tile = load_tile(tile_at(v, batch, key_head, key_start, VO, BLOCK_K), alive, VO)
    tl.debug_barrier()
    dk_tile, dv_tile = k_tile, v_tile  # what is not asked for is never read
    if GRADIENTS != "dv":
        dk_tile = load_tile(tile_at(dk, batch, key_head, key_start, QK, BLOCK_K), alive, QK)
        tl.debug_barrier()
    if GRADIENTS != "dk":
        dv_tile = load_tile(tile_at(dv, batch, key_head, key_start, VO, BLOCK_K), alive, VO)

    q_parts = described(q, batch, first_head, group, seen.row_count, QK, BLOCK_Q)
    do_parts = described(do, batch, first_head, group, seen.row_count, VO, BLOCK_Q)
    first_row = start + before * BLOCK_Q
    lse_place = rows_at(lse, batch, first_head, first_row, BLOCK_Q)
    delta_place = rows_at(delta, batch, first_head, first_row, BLOCK_Q)
    lse_jump, delta_jump = to_next_head(lse, full, BLOCK_Q), to_next_head(delta, full, BLOCK_Q)
    head, row, last_row = 0, first_row, first_row + (full - 1) * BLOCK_Q
    for _ in range(group * full):
        q_tile, do_tile = read(q_parts, head, row, QK, BLOCK_Q), read(do_parts, head, row, VO, BLOCK_Q)
        lse_row, delta_row = tl.load(lse_place), tl.load(delta_place)
        dk_tile, dv_tile = dkdv_step(
            dk_tile, dv_tile, k_tile, v_tile, alive, q_tile, do_tile, None, score, lse_row, delta_row, None,
            QK, VO, CAPPED, PRECISION, True, GRADIENTS,
        )  # fmt: skip
        last = row == last_row
        head += tl.where(last, 1, 0)
        row = tl.where(last, first_row, row + BLOCK_Q)
        lse_place += tl.where(last, lse_jump, BLOCK_Q * lse.row)
        delta_place += tl.where(last, delta_jump, BLOCK_Q * delta.row)

    key_start = tl.load(entry, volatile=True) * BLOCK_K
    alive = alive_at(seen, key_start + tl.arange(0, BLOCK_K), AGAIN=True)
    if GRADIENTS != "dv":
        store_tile(tile_at(dk, batch, key_head, key_start, QK, BLOCK_K), dk_tile, alive, QK)
        tl.debug_barrier()
    if GRADIENTS != "dk":
        store_tile(tile_at(dv, batch, key_head, key_start, VO, BLOCK_K), dv_tile, alive, VO)
