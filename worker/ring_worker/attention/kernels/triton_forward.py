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
    """A tensor [batch, heads, rows, (head size)]: first element, and strides in elements. The head dim's stride is 1."""

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
def load_tile(at, row_stride, start, alive, HEAD: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Rows start .. start + ROWS as [ROWS, WIDTH]; zero where not `alive` (None: all are) and beyond the head size."""
    row, dim = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    place = at + start.to(tl.int64) * row_stride + (row[:, None] * row_stride + dim[None, :])
    if alive is None:
        tile = tl.load(place, mask=None if HEAD == WIDTH else dim[None, :] < HEAD)
    else:
        tile = tl.load(place, mask=alive[:, None] & (dim[None, :] < HEAD), other=0.0)
    return tile


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

    row, dim = row_start + tl.arange(0, BLOCK_Q), tl.arange(0, WIDTH)
    lo = tl.load(seen.lo + row, mask=row < seen.row_count, other=0)
    hi = tl.load(seen.hi + row, mask=row < seen.row_count, other=0)
    live = hi > lo
    q_tile = load_tile(first_of(q, batch, head), q.row, row_start, live, HEAD, WIDTH, BLOCK_Q)
    k_at, v_at = first_of(k, batch, head // group), first_of(v, batch, head // group)
    m_at = first_of(m, batch, head) + row.to(tl.int64) * m.row
    l_at = first_of(l, batch, head) + row.to(tl.int64) * l.row
    acc_at = first_of(acc, batch, head) + row.to(tl.int64)[:, None] * acc.row + dim[None, :]
    acc_mask = live[:, None] & (dim[None, :] < HEAD)
    m_row = tl.load(m_at, mask=live, other=-float("inf"))
    l_row = tl.load(l_at, mask=live, other=0.0)
    acc_tile = tl.load(acc_at, mask=acc_mask, other=0.0)

    for step in range(before, before + full):
        key_start = start + step * BLOCK_K
        k_tile = load_tile(k_at, k.row, key_start, None, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v_at, v.row, key_start, None, HEAD, WIDTH, BLOCK_K)
        s = tl.dot(q_tile, k_tile.T, input_precision="ieee")
        m_row, l_row, acc_tile = softmax_step(s, v_tile, m_row, l_row, acc_tile, scale)
    for masked in range(steps - full):
        key_start = start + (masked + tl.where(masked < before, 0, full)) * BLOCK_K
        key = key_start + tl.arange(0, BLOCK_K)
        alive = tl.load(seen.keys + key, mask=key < seen.key_count, other=0) != 0
        k_tile = load_tile(k_at, k.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
        v_tile = load_tile(v_at, v.row, key_start, alive, HEAD, WIDTH, BLOCK_K)
        s = tl.dot(q_tile, k_tile.T, input_precision="ieee")
        s = tl.where((key[None, :] >= lo[:, None]) & (key[None, :] < hi[:, None]), s, -float("inf"))
        m_row, l_row, acc_tile = softmax_step(s, v_tile, m_row, l_row, acc_tile, scale)

    tl.store(m_at, m_row, mask=live)
    tl.store(l_at, l_row, mask=live)
    tl.store(acc_at, acc_tile, mask=acc_mask)
