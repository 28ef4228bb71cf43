"""What the Triton kernels share: tensors by stride, tiles in parts, products over parts, the soft cap.

Tiles of Triton are powers of two wide, head sizes are not. A head size is cut into one or two such *parts* (80 is
64 and 16, 192 is 128 and 64), each loaded and multiplied by itself; padding 80 to 128 would spend a third of the matrix
work on zeros. A tile is therefore a tuple of one or two tensors, and only this file knows of how many. Addresses of a
tile's first row are 64 bits wide, since a batch of long sequences passes 2^31 elements; inside a tile 32 are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Dims:
    """A head size and the widths of its parts."""

    size: int
    widths: tuple[int, ...]

    def __repr__(self) -> str:
        return "_".join(map(str, (self.size, *self.widths)))


@triton.constexpr_function
def dims_of(head_size, widest):
    """The two parts of `part_of`, those that are wider than `widest` cut into such."""
    parts = [part_of(head_size, index) for index in (0, 1)]
    widths = [min(part, widest) for part in parts if part for _ in range(max(1, part // widest))]
    return Dims(head_size, tuple(widths))


@triton.constexpr_function
def count_of(dims):
    return len(dims.widths)


@triton.constexpr_function
def width_of(dims, index):
    return dims.widths[index]


@triton.constexpr_function
def first_dim(dims, index):
    return sum(dims.widths[:index])


@triton.constexpr_function
def size_of(dims):
    return dims.size


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
def tile_at(x, batch, head, start, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """Addresses of a tile, part by part."""
    places = ()
    for i in tl.static_range(count_of(DIMS)):
        places = places + (part_at(x, batch, head, start, first_dim(DIMS, i), width_of(DIMS, i), ROWS),)  # type: ignore[assignment]  # noqa: RUF005
    return places


@triton.jit
def moved(places, by):
    """Addresses `by` elements further on."""
    further = ()
    for i in tl.static_range(len(places)):
        further = further + (places[i] + by,)  # type: ignore[assignment]  # noqa: RUF005
    return further


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
def load_part(place, alive, FIRST: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, AGAIN: tl.constexpr):
    mask = part_mask(alive, FIRST, WIDTH, HEAD)
    return tl.load(place, volatile=AGAIN) if mask is None else tl.load(place, mask=mask, other=0.0, volatile=AGAIN)


@triton.jit
def load_tile(places, alive, DIMS: tl.constexpr, AGAIN: tl.constexpr = False):
    """A tile; 0 where there is nothing. `alive` as in `part_mask`, AGAIN as in `bounds_at`."""
    tile = ()
    for i in tl.static_range(count_of(DIMS)):
        part = load_part(places[i], alive, first_dim(DIMS, i), width_of(DIMS, i), size_of(DIMS), AGAIN)
        tile = tile + (part,)  # type: ignore[assignment]  # noqa: RUF005
    return tile


@triton.jit
def store_tile(places, tile, alive, DIMS: tl.constexpr):
    """Store rows that are alive."""
    for i in tl.static_range(count_of(DIMS)):
        mask = part_mask(alive, first_dim(DIMS, i), width_of(DIMS, i), size_of(DIMS))
        tl.store(places[i], tile[i], mask=mask)


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
def held(places, alive, DIMS: tl.constexpr, HELD: tl.constexpr):
    """What the products below take: a tile, or, if not HELD, its addresses, which they read part by part."""
    if HELD:
        places = load_tile(places, alive, DIMS)
    return places


@triton.jit
def read_part(x, alive, DIMS: tl.constexpr, INDEX: tl.constexpr, HELD: tl.constexpr):
    """One part of what `held` gave. Not HELD: never two at once, since they would not fit into registers."""
    if HELD:
        part = x[INDEX]
    else:
        tl.debug_barrier()
        part = load_part(x[INDEX], alive, first_dim(DIMS, INDEX), width_of(DIMS, INDEX), size_of(DIMS), True)
    return part


@triton.jit
def product(a, a_alive, b, b_alive, DIMS: tl.constexpr, PRECISION: tl.constexpr, HELD: tl.constexpr):
    """a bᵀ, summed over the parts of both: [rows of a, rows of b]. Both as `held` gave them."""
    x, y = read_part(a, a_alive, DIMS, 0, HELD), read_part(b, b_alive, DIMS, 0, HELD)
    s = tl.dot(x, y.T, input_precision=input_precision(PRECISION))
    for i in tl.static_range(1, count_of(DIMS)):
        x, y = read_part(a, a_alive, DIMS, i, HELD), read_part(b, b_alive, DIMS, i, HELD)
        s = tl.dot(x, y.T, s, input_precision=input_precision(PRECISION))
    return s


@triton.jit
def add_product(acc, p, x, alive, DIMS: tl.constexpr, PRECISION: tl.constexpr, HELD: tl.constexpr):
    """acc + p x for every part of x, as `held` gave it. `p` [rows, rows of x] is rounded to the dtype of x."""
    p = narrowed(p, x[0].dtype.scalar if HELD else x[0].dtype.element_ty, PRECISION)
    total = ()
    for i in tl.static_range(count_of(DIMS)):
        part = tl.dot(p, read_part(x, alive, DIMS, i, HELD), acc[i], input_precision=input_precision(PRECISION))
        total = total + (part,)  # type: ignore[assignment]  # noqa: RUF005
    return total


@triton.jit
def scaled(acc, factor):
    """Each row of a tile by its factor."""
    tile = ()
    for i in tl.static_range(len(acc)):
        tile = tile + (acc[i] * factor[:, None],)  # type: ignore[assignment]  # noqa: RUF005
    return tile


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
