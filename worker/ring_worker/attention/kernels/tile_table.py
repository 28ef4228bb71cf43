"""Which tile each kernel runs with on which GPU: data, read by the launcher and by the audit (`benchmarks.kernels`).

Chosen by that audit, without a GPU: of the tiles that compile without spilling a register, in the shared memory that
the target has and with its own matrix instructions, the one whose inner loop has the fewest other instructions for its
products. sm_80 stays below 99 KiB, so that it also fits its smaller relatives (sm_86, sm_89, sm_120). A GPU that is
there measures the tiles around these (`tuning`).

fp32 products are made of three products of tf32 on NVIDIA ("tf32x3", exact to about 2^-21), and by gfx942 itself; the
operands stand in registers, some of them twice, hence tiles of 16 rows, and where those spill, too, products of fused
multiply-adds without matrix instructions ("ieee"). On gfx942, which has no instruction to round to
bf16, that is done by integer arithmetic ("bits").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from ring_worker.attention.kernels.triton_tiles import part_of

HEAD_SIZES = (16, 256)
KERNELS = ("forward", "dq", "dkdv")
DTYPES = ("bf16", "fp16", "fp32")


class Part(NamedTuple):
    """One launch of a kernel. `steps`: "all", "full" (no mask) or "masked". `gradients`: "all" or, of dkdv, one."""

    steps: str
    gradients: str

    def __str__(self) -> str:
        return "".join(f"+{name}" for name in self if name != "all")


WHOLE = Part("all", "all")


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows and keys of a tile, warps of a program, stages of the software pipeline, and how products are made.

    What lets larger tiles run without spilling: `apart`, full and masked steps in two launches, so that the registers
    of one loop do not weigh on the other; `halves`, dk and dv in two launches, for one product more; not `held`, the
    program's own operands loaded anew in each step, in parts of 64 dims, not kept in registers; `described`, of dkdv
    on sm_90 and sm_100, the queries of full steps read through tensor descriptors, which implies `apart`.
    """

    block_q: int
    block_k: int
    warps: int
    stages: int
    precision: str = "ieee"
    apart: bool = False
    halves: bool = False
    held: bool = True
    described: bool = False

    def parts(self, kernel: str) -> tuple[Part, ...]:
        """The launches that make up a run of a kernel."""
        steps = ("full", "masked") if self.apart or self.described else ("all",)
        gradients = ("dv", "dk") if self.halves and kernel == "dkdv" else ("all",)
        return tuple(Part(*pair) for pair in product(steps, gradients))

    @property
    def widest(self) -> int:
        """Of the parts into which a head size is cut. In fp32 an operand's part of 256 takes 256 registers."""
        return 256 if self.held else 64


@dataclass(frozen=True, slots=True)
class Shape:
    """Head sizes: of queries and keys, and of values."""

    head: int
    values: int

    def __str__(self) -> str:
        return str(self.head) if self.head == self.values else f"{self.head}:{self.values}"


# block_q, block_k, warps, stages, and what else, in words: "apart", "halves", "parts" (not held), "described", "ieee"
Entry = tuple[int, int, int, int] | tuple[int, int, int, int, str]
Widths = Mapping[Shape, Entry]

ROWS = tuple(
    Shape(*sizes)
    for sizes in ((16, 16), (32, 32), (64, 64), (80, 80), (96, 96), (128, 128), (192, 128), (192, 192), (256, 256))
)


def _rows(*tiles: Entry) -> Widths:
    """An entry for each of ROWS."""
    return dict(zip(ROWS, tiles, strict=True))


HALF: Mapping[str, Mapping[str, Widths]] = {
    "sm_80": {
        "forward": _rows(
            (128, 64, 4, 3),  # 16
            (128, 64, 4, 3),  # 32
            (128, 64, 4, 3),  # 64
            (128, 64, 8, 2),  # 80
            (128, 64, 8, 2),  # 96
            (128, 64, 8, 2),  # 128
            (128, 64, 8, 2),  # 192:128
            (128, 32, 8, 2),  # 192
            (64, 32, 8, 2),  # 256
        ),
        "dq": _rows(
            (64, 64, 4, 2),  # 16
            (64, 64, 4, 2),  # 32
            (128, 64, 8, 2),  # 64
            (128, 64, 8, 2),  # 80
            (128, 64, 8, 2),  # 96
            (128, 32, 8, 2),  # 128
            (32, 32, 4, 1),  # 192:128
            (32, 32, 4, 1),  # 192
            (64, 32, 8, 1),  # 256
        ),
        "dkdv": _rows(
            (64, 64, 4, 2),  # 16
            (32, 128, 4, 2),  # 32
            (32, 128, 4, 2),  # 64
            (32, 128, 8, 2),  # 80
            (32, 128, 8, 2),  # 96
            (32, 128, 8, 2, "apart"),  # 128
            (32, 32, 8, 1),  # 192:128
            (32, 32, 8, 2),  # 192
            (32, 32, 8, 1),  # 256
        ),
    },
    "sm_90": {
        "forward": _rows(
            (128, 64, 4, 3),  # 16
            (128, 64, 4, 3),  # 32
            (128, 128, 8, 3),  # 64
            (128, 128, 8, 2),  # 80
            (128, 128, 8, 2),  # 96
            (128, 128, 8, 2),  # 128
            (128, 128, 8, 2),  # 192:128
            (128, 64, 8, 2),  # 192
            (64, 32, 8, 2),  # 256
        ),
        "dq": _rows(
            (128, 64, 4, 3),  # 16
            (128, 64, 4, 3),  # 32
            (128, 32, 4, 3),  # 64
            (128, 64, 8, 2),  # 80
            (128, 64, 8, 2),  # 96
            (128, 64, 8, 2),  # 128
            (128, 64, 8, 2),  # 192:128
            (128, 64, 8, 2),  # 192
            (128, 32, 8, 1, "apart"),  # 256
        ),
        "dkdv": _rows(
            (64, 64, 4, 2),  # 16
            (64, 64, 4, 2),  # 32
            (64, 128, 8, 2),  # 64
            (64, 128, 8, 2),  # 80
            (64, 128, 8, 2, "described"),  # 96
            (64, 128, 8, 2, "described"),  # 128
            (32, 128, 8, 2, "described"),  # 192:128
            (64, 128, 8, 2, "described halves"),  # 192
            (32, 128, 8, 2, "described halves"),  # 256
        ),
    },
    "sm_100": {
        "forward": _rows(
            (128, 64, 4, 3),  # 16
            (128, 64, 8, 3),  # 32
            (128, 128, 8, 3),  # 64
            (128, 128, 8, 2),  # 80
            (128, 128, 8, 2),  # 96
            (128, 128, 8, 2),  # 128
            (128, 64, 8, 2),  # 192:128
            (128, 64, 8, 2),  # 192
            (128, 32, 8, 2),  # 256
        ),
        "dq": _rows(
            (128, 64, 4, 3),  # 16
            (128, 64, 4, 3),  # 32
            (128, 32, 4, 3),  # 64
            (128, 64, 8, 2),  # 80
            (128, 64, 8, 2),  # 96
            (128, 64, 8, 2, "apart"),  # 128
            (128, 64, 8, 2),  # 192:128
            (128, 64, 8, 2),  # 192
            (64, 32, 8, 2),  # 256
        ),
        "dkdv": _rows(
            (64, 64, 4, 2),  # 16
            (64, 128, 4, 2),  # 32
            (64, 128, 4, 2, "apart"),  # 64
            (64, 128, 8, 2),  # 80
            (64, 128, 8, 2),  # 96
            (64, 128, 8, 2, "described"),  # 128
            (64, 128, 8, 2, "described"),  # 192:128
            (64, 64, 8, 2),  # 192
            (32, 64, 8, 2),  # 256
        ),
    },
    "gfx942": {
        "forward": _rows(
            (128, 64, 4, 2),  # 16
            (128, 64, 4, 2),  # 32
            (128, 64, 4, 2),  # 64
            (128, 64, 4, 2),  # 80
            (128, 32, 4, 1),  # 96
            (128, 64, 4, 2),  # 128
            (64, 64, 4, 1),  # 192:128
            (64, 64, 4, 1),  # 192
            (64, 64, 4, 1),  # 256
        ),
        "dq": _rows(
            (64, 64, 4, 2),  # 16
            (64, 64, 4, 2),  # 32
            (128, 32, 4, 2),  # 64
            (64, 64, 4, 1),  # 80
            (64, 32, 4, 2),  # 96
            (128, 32, 4, 2),  # 128
            (64, 32, 4, 1),  # 192:128
            (64, 32, 4, 1),  # 192
            (64, 32, 4, 1),  # 256
        ),
        "dkdv": _rows(
            (32, 64, 4, 2),  # 16
            (32, 128, 4, 2),  # 32
            (32, 128, 4, 2),  # 64
            (32, 64, 4, 1),  # 80
            (16, 64, 4, 1),  # 96
            (32, 128, 4, 1, "apart"),  # 128
            (32, 64, 4, 1),  # 192:128
            (16, 64, 4, 1),  # 192
            (16, 64, 4, 1),  # 256
        ),
    },
}
# fp32 on NVIDIA, and where sm_80 and sm_100 differ from sm_90.
_SINGLE_90: Mapping[str, Widths] = {
    "forward": _rows(
        (32, 32, 8, 1),  # 16
        (32, 32, 8, 1),  # 32
        (32, 32, 8, 1),  # 64
        (32, 32, 8, 1, "ieee"),  # 80
        (16, 32, 8, 1),  # 96
        (16, 32, 8, 1),  # 128
        (16, 16, 8, 1, "parts ieee"),  # 192:128
        (16, 16, 8, 1, "parts ieee"),  # 192
        (16, 16, 8, 1, "parts ieee"),  # 256
    ),
    "dq": _rows(
        (16, 32, 4, 1),  # 16
        (16, 32, 4, 1),  # 32
        (16, 32, 4, 1),  # 64
        (32, 32, 8, 1, "parts ieee"),  # 80
        (16, 16, 4, 1),  # 96
        (16, 16, 8, 1, "parts ieee"),  # 128
        (16, 32, 8, 1, "parts ieee"),  # 192:128
        (16, 32, 8, 1, "parts ieee"),  # 192
        (16, 16, 8, 1, "parts ieee"),  # 256
    ),
    "dkdv": _rows(
        (16, 32, 4, 1),  # 16
        (16, 32, 4, 1),  # 32
        (32, 32, 8, 1),  # 64
        (32, 32, 8, 1, "ieee"),  # 80
        (16, 16, 4, 1),  # 96
        (16, 16, 8, 1, "parts"),  # 128
        (16, 32, 8, 1, "parts ieee halves"),  # 192:128
        (16, 32, 8, 1, "parts ieee halves"),  # 192
        (16, 16, 8, 1, "parts ieee halves"),  # 256
    ),
}
_SINGLE_80: Mapping[str, Widths] = {
    "forward": {
        **_SINGLE_90["forward"],
        Shape(96, 96): (16, 16, 8, 1),
        Shape(128, 128): (16, 32, 4, 1),
    },
    "dq": {**_SINGLE_90["dq"], Shape(128, 128): (16, 16, 8, 1, "parts")},
    "dkdv": _SINGLE_90["dkdv"],
}
_SINGLE_100: Mapping[str, Widths] = {
    **_SINGLE_90,
    "dkdv": {**_SINGLE_90["dkdv"], Shape(128, 128): (16, 16, 8, 1, "parts ieee halves")},
}
SINGLE: Mapping[str, Mapping[str, Widths]] = {
    "sm_80": _SINGLE_80,
    "sm_90": _SINGLE_90,
    "sm_100": _SINGLE_100,
    "gfx942": {
        "forward": _rows(
            (32, 32, 8, 1),  # 16
            (32, 32, 8, 1),  # 32
            (32, 32, 8, 1),  # 64
            (16, 16, 4, 1),  # 80
            (16, 16, 4, 1),  # 96
            (16, 16, 4, 1),  # 128
            (16, 16, 4, 1),  # 192:128
            (16, 16, 4, 1),  # 192
            (16, 16, 4, 1),  # 256
        ),
        "dq": _rows(
            (32, 32, 8, 1),  # 16
            (32, 32, 8, 1),  # 32
            (32, 32, 8, 1),  # 64
            (16, 16, 4, 1),  # 80
            (16, 16, 4, 1),  # 96
            (16, 16, 4, 1),  # 128
            (16, 16, 4, 1),  # 192:128
            (16, 16, 4, 1),  # 192
            (16, 16, 4, 1),  # 256
        ),
        "dkdv": _rows(
            (16, 32, 4, 1),  # 16
            (16, 32, 4, 1),  # 32
            (16, 32, 4, 1),  # 64
            (16, 16, 4, 1),  # 80
            (16, 16, 4, 1),  # 96
            (16, 16, 4, 1),  # 128
            (16, 16, 4, 1, "parts"),  # 192:128
            (16, 16, 4, 1, "parts"),  # 192
            (16, 16, 4, 1, "parts"),  # 256
        ),
    },
}
# Where a soft cap, compiled in, wants more registers than the row's tile leaves.
CAPPED: Mapping[tuple[str, str, Shape], Entry] = {
    ("sm_80", "dkdv", Shape(64, 64)): (64, 128, 8, 2),
    ("sm_80", "dkdv", Shape(128, 128)): (64, 64, 8, 2),
    ("sm_90", "dkdv", Shape(96, 96)): (32, 128, 8, 2),
    ("sm_90", "dkdv", Shape(128, 128)): (32, 128, 8, 2),
    ("sm_90", "dkdv", Shape(192, 128)): (32, 64, 8, 2),
    ("sm_100", "dkdv", Shape(32, 32)): (64, 64, 8, 2),
    ("sm_100", "dkdv", Shape(64, 64)): (64, 128, 8, 2),
    ("sm_100", "dkdv", Shape(192, 128)): (64, 64, 8, 2),
}


def target_of(capability: tuple[int, int] | None, hip: bool) -> str:
    """The target whose tiles a device gets. `capability`: of a CUDA device; None for the interpreter."""
    if hip:
        return "gfx942"
    if capability is None:
        return "sm_90"
    return {9: "sm_90", 10: "sm_100"}.get(capability[0], "sm_80")


def padded(head_size: int) -> int:
    """What a head size takes in registers and products."""
    width: int = part_of(head_size, 0) + part_of(head_size, 1)
    return width


def row_for(shape: Shape) -> Shape:
    """The first of the table's rows whose parts hold those of a shape."""
    head, values = padded(shape.head), padded(shape.values)
    return next(row for row in ROWS if row.head >= head and row.values >= values)


def tile_for(kernel: str, shape: Shape, dtype: str, target: str, capped: bool = False) -> Tile:
    """`kernel`: one of KERNELS. `dtype`: one of DTYPES. `capped`: with a soft cap."""
    row = row_for(shape)
    entry = (SINGLE if dtype == "fp32" else HALF)[target][kernel][row]
    if capped and dtype != "fp32":
        entry = CAPPED.get((target, kernel, row), entry)
    block_q, block_k, warps, stages, *words = entry
    also = set(words[0].split()) if words else set()
    precision = "ieee" if "ieee" in also else _precision(dtype, target)
    ways = ("apart" in also, "halves" in also, "parts" not in also, "described" in also)
    return Tile(block_q, block_k, warps, stages, precision, *ways)


def _precision(dtype: str, target: str) -> str:
    if dtype == "fp32":
        return "ieee" if target == "gfx942" else "tf32x3"
    return "bits" if (dtype, target) == ("bf16", "gfx942") else "ieee"
