"""Which tile each kernel runs with on which GPU: data, read by the launcher and by the audit in `tests/kernels`.

Chosen by that audit, without a GPU: the largest tiles that compile without spilling a register (bf16), in the shared
memory that the target has. sm_80 stays below 99 KiB, so that it also fits its smaller relatives (sm_86, sm_89, sm_120).
In fp32 products are not rounded to fewer bits and hence use no matrix instructions: small tiles, slow, and from a head
size of 64 on they spill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEAD_SIZES = (16, 256)
KERNELS = ("forward", "dq", "dkdv")


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows and keys of a tile, warps of a program, and stages of the software pipeline."""

    block_q: int
    block_k: int
    warps: int
    stages: int


Widths = Mapping[int, Tile]

SM_80: Mapping[str, Widths] = {
    "forward": {
        16: Tile(128, 64, 4, 3),
        32: Tile(128, 64, 4, 3),
        64: Tile(128, 64, 8, 3),
        128: Tile(128, 32, 8, 3),
        256: Tile(64, 32, 8, 2),
    },
    "dq": {
        16: Tile(128, 64, 4, 3),
        32: Tile(64, 64, 4, 2),
        64: Tile(128, 64, 8, 2),
        128: Tile(64, 64, 8, 2),
        256: Tile(32, 32, 4, 1),
    },
    "dkdv": {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 128, 8, 2),
        128: Tile(64, 64, 8, 2),
        256: Tile(32, 32, 8, 1),
    },
}
SM_90: Mapping[str, Widths] = {
    "forward": {
        16: Tile(128, 64, 4, 3),
        32: Tile(128, 64, 4, 3),
        64: Tile(128, 64, 4, 3),
        128: Tile(128, 64, 8, 3),
        256: Tile(64, 32, 8, 2),
    },
    "dq": {
        16: Tile(128, 64, 4, 3),
        32: Tile(128, 64, 4, 3),
        64: Tile(128, 64, 8, 2),
        128: Tile(128, 64, 8, 2),
        256: Tile(128, 32, 8, 1),
    },
    "dkdv": {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 128, 8, 2),
        128: Tile(32, 128, 8, 2),
        256: Tile(32, 32, 8, 1),
    },
}
SM_100: Mapping[str, Widths] = {
    "forward": SM_90["forward"],
    "dq": {**SM_90["dq"], 256: Tile(64, 32, 8, 2)},
    "dkdv": {**SM_90["dkdv"], 256: Tile(32, 64, 8, 1)},
}
GFX942: Mapping[str, Widths] = {
    "forward": {
        16: Tile(128, 64, 4, 2),
        32: Tile(128, 64, 4, 2),
        64: Tile(128, 64, 4, 2),
        128: Tile(128, 32, 4, 2),
        256: Tile(64, 32, 4, 1),
    },
    "dq": {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 64, 4, 2),
        128: Tile(64, 32, 4, 2),
        256: Tile(64, 32, 4, 1),
    },
    "dkdv": {
        16: Tile(32, 64, 4, 2),
        32: Tile(32, 64, 4, 2),
        64: Tile(32, 64, 4, 2),
        128: Tile(32, 64, 4, 2),
        256: Tile(16, 64, 4, 1),
    },
}
HALF = {"sm_80": SM_80, "sm_90": SM_90, "sm_100": SM_100, "gfx942": GFX942}
SINGLE: Widths = {
    16: Tile(32, 32, 8, 1),
    32: Tile(32, 32, 8, 1),
    64: Tile(32, 32, 8, 1),
    128: Tile(32, 32, 8, 1),
    256: Tile(16, 16, 4, 1),
}


def target_of(capability: tuple[int, int] | None, hip: bool) -> str:
    """The target whose tiles a device gets. `capability`: of a CUDA device; None for the interpreter."""
    if hip:
        return "gfx942"
    if capability is None:
        return "sm_90"
    return {9: "sm_90", 10: "sm_100"}.get(capability[0], "sm_80")


def width_of(head_size: int) -> int:
    """The power of two, at least 16, to which a kernel pads the head size in registers."""
    return max(16, 1 << (head_size - 1).bit_length())


def tile_for(kernel: str, head_size: int, itemsize: int, target: str) -> Tile:
    """`kernel`: one of KERNELS. `itemsize`: bytes of an element of q, k and v."""
    width = width_of(head_size)
    return SINGLE[width] if itemsize == 4 else HALF[target][kernel][width]
