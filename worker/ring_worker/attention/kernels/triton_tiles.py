"""What the Triton kernels share: tensors by stride, tiles in parts, products over parts, the soft cap.

Tiles of Triton are powers of two wide, head sizes are not. A head size is cut into one or two such *parts* (80 is
64 and 16, 192 is 128 and 64), each loaded and multiplied by itself; padding 80 to 128 would spend a third of the matrix
work on zeros. A tile is therefore a tuple of one or two tensors, and only this file knows of how many. Addresses of a
tile's first row are 64 bits wide, since a batch of long sequences passes 2^31 elements; inside a tile 32 are enough.
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


class Score(NamedTuple):
    """What turns a product q k into a score, as in `Block`. Kernels that are compiled without a cap never read it."""

    scale: Any
    softcap: Any


@triton.constexpr_function
def part_of(head_size, index):
    """Width of part 0 or 1 (0 for none): one or two powers of two, at least 16 each, that hold the head size best."""
    whole = max(16, 1 << (head_size - 1).bit_length())
    half = whole // 2
    rest = max(16, 1 << max(0, head_size - half - 1).bit_length())
    parts = (whole, 0) if head_size == whole or half + rest >= whole else (half, rest)
    return parts[index]


@triton.constexpr_function
def piece_of(block):
    """Half of a step, as masked steps are walked, or all of the smallest."""
    return max(16, block // 2)


@triton.jit
def first_of(x, batch, head, start):
    """Address of row `start` of a head."""
    return x.at + batch.to(tl.int64) * x.batch + head.to(tl.int64) * x.head + start.to(tl.int64) * x.row


@triton.jit
def rows_at(x, batch, head, start, ROWS: tl.constexpr):
    """Addresses of the rows start .. start + ROWS of a head."""
    return first_of(x, batch, head, start) + tl.arange(0, ROWS) * x.row


@triton.jit
def part_at(x, batch, head, start, FIRST: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Addresses of dims FIRST .. FIRST + WIDTH of the rows start .. start + ROWS of a head, [ROWS, WIDTH]."""
    inside = tl.arange(0, ROWS)[:, None] * x.row + (FIRST + tl.arange(0, WIDTH))[None, :]
    return first_of(x, batch, head, start) + inside


@triton.jit
def tile_at(x, batch, head, start, HEAD: tl.constexpr, ROWS: tl.constexpr):
    """Addresses of a tile, part by part."""
    MAIN: tl.constexpr = part_of(HEAD, 0)
    REST: tl.constexpr = part_of(HEAD, 1)
    if REST == 0:
        return (part_at(x, batch, head, start, 0, MAIN, ROWS),)
    else:
        return (
            part_at(x, batch, head, start, 0, MAIN, ROWS),
            part_at(x, batch, head, start, MAIN, REST, ROWS),
        )


@triton.jit
def moved(places, by):
    """Addresses `by` elements further on."""
    if len(places) == 1:
        return (places[0] + by,)
    else:
        return (places[0] + by, places[1] + by)


@triton.jit
def part_mask(alive, FIRST: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr):
    """Which elements of a part exist: rows that are alive (None: all) by the dims that the head size has."""
    dim = FIRST + tl.arange(0, WIDTH)[None, :]
    if FIRST + WIDTH <= HEAD:
        mask = None if alive is None else alive[:, None]
    else:
        mask = dim < HEAD if alive is None else alive[:, None] & (dim < HEAD)
    return mask


@triton.jit
def load_part(place, alive, FIRST: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr):
    mask = part_mask(alive, FIRST, WIDTH, HEAD)
    return tl.load(place) if mask is None else tl.load(place, mask=mask, other=0.0)


@triton.jit
def load_tile(places, alive, HEAD: tl.constexpr):
    """A tile; 0 where there is nothing. `alive` as in `part_mask`."""
    MAIN: tl.constexpr = part_of(HEAD, 0)
    REST: tl.constexpr = part_of(HEAD, 1)
    if REST == 0:
        return (load_part(places[0], alive, 0, MAIN, HEAD),)
    else:
        return load_part(places[0], alive, 0, MAIN, HEAD), load_part(places[1], alive, MAIN, REST, HEAD)


@triton.jit
def store_tile(places, tile, alive, HEAD: tl.constexpr):
    """Store rows that are alive."""
    MAIN: tl.constexpr = part_of(HEAD, 0)
    REST: tl.constexpr = part_of(HEAD, 1)
    tl.store(places[0], tile[0], mask=part_mask(alive, 0, MAIN, HEAD))
    if REST > 0:
        tl.store(places[1], tile[1], mask=part_mask(alive, MAIN, REST, HEAD))


@triton.jit
def narrowed(p, kind: tl.constexpr, PRECISION: tl.constexpr):
    """fp32 to the dtype of an operand. "bits": to bf16 where the GPU has no instruction for it, ties away from zero."""
    if PRECISION == "bits":
        half_up = p.to(tl.int32, bitcast=True) + 0x8000
        return (half_up >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return p.to(kind)


@triton.constexpr_function
def input_precision(precision):
    return "ieee" if precision == "bits" else precision


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a bᵀ, summed over the parts of both: [rows of a, rows of b]."""
    s = tl.dot(a[0], b[0].T, input_precision=input_precision(PRECISION))
    if len(a) > 1:
        s = tl.dot(a[1], b[1].T, s, input_precision=input_precision(PRECISION))
    return s


@triton.jit
def add_product(acc, p, x, PRECISION: tl.constexpr):
    """acc + p x for every part of x. `p` [rows, rows of x] is rounded to the dtype of x."""
    p = narrowed(p, x[0].dtype, PRECISION)
    if len(acc) == 1:
        return (tl.dot(p, x[0], acc[0], input_precision=input_precision(PRECISION)),)
    else:
        return (
            tl.dot(p, x[0], acc[0], input_precision=input_precision(PRECISION)),
            tl.dot(p, x[1], acc[1], input_precision=input_precision(PRECISION)),
        )


@triton.jit
def scaled(acc, factor):
    """Each row of a tile by its factor."""
    if len(acc) == 1:
        return (acc[0] * factor[:, None],)
    else:
        return acc[0] * factor[:, None], acc[1] * factor[:, None]


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
def falling(s, score):
    """r = 1 / (exp(2 s / c) + 1) of products in raw units; 0 where the exponential overflows."""
    return tl.fdiv(1.0, tl.exp2(s * (2 * LOG2E * score.scale / score.softcap)) + 1.0)


@triton.jit
def capped(s, score):
    """c tanh(s / c) = c (1 - 2 r) in units of log2. The error is that of fp32 at the cap, about 1e-7 c."""
    return (score.softcap * LOG2E) * (1.0 - 2.0 * falling(s, score))


@triton.jit
def cap_slope(s, score):
    """1 - tanh(s / c)^2 = 4 r (1 - r). The compiler sees that r is the one in `capped`."""
    r = falling(s, score)
    return 4.0 * r * (1.0 - r)
