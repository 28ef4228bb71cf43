"""Which tile shape each kernel runs with: data, read by the launcher and by the audit in `tests/kernels`.

Chosen by the audit, without a GPU: no spills on sm_80, sm_90 and sm_100, and shared memory that fits every target.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_SIZES = (16, 256)


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows and keys of a tile, warps of a program, and stages of the software pipeline."""

    block_q: int
    block_k: int
    warps: int
    stages: int


HALF = {
    "forward": {
        16: Tile(128, 64, 4, 3),
        32: Tile(128, 64, 4, 3),
        64: Tile(128, 64, 4, 3),
        128: Tile(128, 64, 8, 2),
        256: Tile(64, 32, 4, 2),
    },
    "dq": {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 64, 4, 2),
        128: Tile(64, 32, 4, 2),
        256: Tile(64, 32, 8, 1),
    },
    "dkdv": {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 64, 4, 2),
        128: Tile(32, 64, 4, 2),
        256: Tile(32, 64, 8, 1),
    },
}
SINGLE = {
    "forward": {w: Tile(32, 32, 4, 1) for w in (16, 32, 64, 128, 256)},
    "dq": {w: Tile(32, 32, 4, 1) for w in (16, 32, 64, 128, 256)},
    "dkdv": {w: Tile(32, 32, 4, 1) for w in (16, 32, 64, 128, 256)},
}


def width_of(head_size: int) -> int:
    """The power of two, at least 16, to which a kernel pads the head size in registers."""
    return max(16, 1 << (head_size - 1).bit_length())


def tile_for(kernel: str, head_size: int, itemsize: int) -> Tile:
    """`kernel`: forward, dq or dkdv. `itemsize`: bytes of an element of q, k and v."""
    return (SINGLE if itemsize == 4 else HALF)[kernel][width_of(head_size)]
