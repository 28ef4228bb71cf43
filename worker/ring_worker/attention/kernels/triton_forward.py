"""The forward kernel: goes on with the online softmax of one tile of query rows over the keys that they see.

In: a tile of queries and its carried state. The walk over the keys is laid out by `spans`: first the steps in which
every pair is visible, without any mask, then those before and behind, with one; the order does not matter to a softmax.
Keys that no row sees are never loaded, so neighbouring memory may hold anything. Exponentials are powers of two, but
the row maximum stays in natural units, since it is what the next block, maybe of another kernel, goes on from: the
power's base is folded into the factor at use, the same way each time, and no block rounds the state of the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


class Rows(NamedTuple):
    """A tensor [batch, heads, rows, (head size)]: first element and strides, in elements. The head dim has stride 1."""

    at: Any
    batch: Any
    head: Any
    row: Any


class Seen(NamedTuple):
    """`spans.Bounds` and a table of `spans` in a kernel, with the number of rows and keys."""

    lo: Any
    hi: Any
    keys: Any
    table: Any
    row_count: Any
    key_count: Any


@triton.jit
def first_of(x, batch, head):
    """Address of row 0 of a head. 64 bits: a batch of long sequences passes 2^31 elements."""
    return x.at + batch.to(tl.int64) * x.batch + head.to(tl.int64) * x.head


@triton.jit
def rows_at(x, batch, head, start, ROWS: tl.constexpr):
    """Addresses of the rows start .. start + ROWS of a head."""
    return first_of(x, batch, head) + start.to(tl.int64) * x.row + tl.arange(0, ROWS) * x.row


@triton.jit
def tile_at(x, batch, head, start, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Addresses of the rows start .. start + ROWS of a head, [ROWS, WIDTH]. Inside a tile 32 bits are enough."""
    first = first_of(x, batch, head) + start.to(tl.int64) * x.row
    return first + (tl.arange(0, ROWS)[:, None] * x.row + tl.arange(0, WIDTH)[None, :])


@triton.jit
def tile_mask(alive, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    """Which elements of a tile exist: rows that are alive (None: all) by the dims of the head size."""
    dim = tl.arange(0, WIDTH)[None, :]
    if alive is None:
        mask = None if HEAD == WIDTH else dim < HEAD
    else:
        mask = alive[:, None] if HEAD == WIDTH else alive[:, None] & (dim < HEAD)
    return mask


@triton.jit
def load_tile(x, batch, head, start, alive, HEAD: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Rows start .. start + ROWS of a head as [ROWS, WIDTH]; 0 where there is nothing. `alive` as in `tile_mask`."""
    place = tile_at(x, batch, head, start, ROWS, WIDTH)
    mask = tile_mask(alive, HEAD, WIDTH)
    return tl.load(place) if mask is None else tl.load(place, mask=mask, other=0.0)


@triton.jit
def bounds_at(seen, row, AGAIN: tl.constexpr = False):
    """(lo, hi) of rows. AGAIN: loaded anew, for the end of a kernel, since what lives through its loops may spill."""
    there = row < seen.row_count
    lo = tl.load(seen.lo + row, mask=there, other=0, volatile=AGAIN)
    hi = tl.load(seen.hi + row, mask=there, other=0, volatile=AGAIN)
    return lo, hi


@triton.jit
def alive_at(seen, key, AGAIN: tl.constexpr = False):
    """Which keys some row sees. AGAIN as in `bounds_at`."""
    return tl.load(seen.keys + key, mask=key < seen.key_count, other=0, volatile=AGAIN) != 0


@triton.jit
def softmax_step(s, v, m, l, acc, scale):  # noqa: E741
    """One step of the online softmax over raw scores `s`; -inf for pairs that are masked."""
    top = tl.maximum(m, tl.max(s, 1) * scale)
    base = tl.where(top == -float("inf"), 0.0, top) * LOG2E  # a row without keys so far stays at 0 and -inf
    p = tl.exp2(s * (scale * LOG2E) - base[:, None])
    old = tl.exp2(m * LOG2E - base)
    l = l * old + tl.sum(p, 1)  # noqa: E741
    acc = tl.dot(p.to(v.dtype), v, acc * old[:, None], input_precision="ieee")
    return top, l, acc


@triton.jit
def forward_kernel(
    q: Rows, k: Rows, v: Rows, acc: Rows, m: Rows, l: Rows, seen: Seen, scale, heads, group,  # noqa: E741
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
    m_row = tl.load(rows_at(m, batch, head, row_start, BLOCK_Q), mask=live, other=-float("inf"))
    l_row = tl.load(rows_at(l, batch, head, row_start, BLOCK_Q), mask=live, other=0.0)
    acc_tile = load_tile(acc, batch, head, row_start, live, HEAD, WIDTH, BLOCK_Q)

    for step in range(before, before + full):
        key_start = start + step * BLOCK_K
        k_tile = load_tile(k, batch, head // group, key_start, None, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v, batch, head // group, key_start, None, HEAD, WIDTH, BLOCK_K)
        s = tl.dot(q_tile, k_tile.T, input_precision="ieee")
        m_row, l_row, acc_tile = softmax_step(s, v_tile, m_row, l_row, acc_tile, scale)
    for masked in tl.range(steps - full, num_stages=1):
        key_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_K
        key = key_start + tl.arange(0, BLOCK_K)
        alive = alive_at(seen, key)
        k_tile = load_tile(k, batch, head // group, key_start, alive, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v, batch, head // group, key_start, alive, HEAD, WIDTH, BLOCK_K)
        s = tl.dot(q_tile, k_tile.T, input_precision="ieee")
        s = tl.where((key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None]), s, -float("inf"))
        m_row, l_row, acc_tile = softmax_step(s, v_tile, m_row, l_row, acc_tile, scale)

    lo, hi = bounds_at(seen, row, AGAIN=True)
    live = hi > lo
    tl.store(rows_at(m, batch, head, row_start, BLOCK_Q), m_row, mask=live)
    tl.store(rows_at(l, batch, head, row_start, BLOCK_Q), l_row, mask=live)
    tl.store(tile_at(acc, batch, head, row_start, BLOCK_Q, WIDTH), acc_tile, mask=tile_mask(live, HEAD, WIDTH))
