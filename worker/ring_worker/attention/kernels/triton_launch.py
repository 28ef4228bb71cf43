"""Launches one Triton kernel: the walk from `spans`, made once for a tuple of runs, and the tile that it is given.

Also times a launch, on tensors of its own, since kernels add to what they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import Any

import torch
import triton
from torch import Tensor

from ring_worker.attention.kernels.interface import Block
from ring_worker.attention.kernels.spans import Bounds, key_tiles, of_steps, query_tiles
from ring_worker.attention.kernels.tile_table import Part, Tile
from ring_worker.attention.kernels.triton_backward import dkdv_kernel, dq_kernel
from ring_worker.attention.kernels.triton_described import dkdv_full_kernel
from ring_worker.attention.kernels.triton_forward import forward_kernel
from ring_worker.attention.kernels.triton_tiles import Rows, Score, Seen
from ring_worker.attention.kernels.tuning import Work
from ring_worker.attention.schedule import Run

KERNELS = {"forward": forward_kernel, "dq": dq_kernel, "dkdv": dkdv_kernel}
DESCRIBED = (0, 3)  # of the arguments of `dkdv_full_kernel` those that it reads through descriptors: q and do
DESCRIPTOR_BYTES = 16  # which addresses and strides must be multiples of
DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
TIMED_HEADS, TIMED_KEY_HEADS, TIMED_ROWS = 16, 4, 4096


@dataclass(frozen=True, slots=True)
class Side:
    """What `seen_for` needs besides the runs, hashable. `kernel` as in the table of tiles."""

    kernel: str
    rows: int
    keys: int
    tile: Tile
    device: torch.device
    steps: str = "all"


@lru_cache(maxsize=256)
def seen_for(runs: tuple[Run, ...], side: Side) -> Seen:
    """The runs as arrays on the device. The same for every layer with this mask, hence cached."""
    bounds = bounds_for(runs, side.rows, side.keys, side.device)
    host = Bounds.of(runs, side.rows, side.keys)
    tile = side.tile
    if side.kernel == "dkdv":
        table = key_tiles(host, tile.block_k, tile.block_q)
    else:
        table = query_tiles(host, tile.block_q, tile.block_k)
    table = of_steps(table, side.steps)
    return Seen(*bounds, torch.from_numpy(table).to(side.device), side.rows, side.keys)


@lru_cache(maxsize=64)
def bounds_for(runs: tuple[Run, ...], rows: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(lo, hi, seen) of `spans.Bounds` on the device, shared by the three kernels.

    `seen` is no narrower than the narrowest input, 16 bits: Triton lays out the operands of a product by the narrowest
    load on their way, so that a mask of bytes made it treat them as fp8, with three times the instructions on sm_80.
    """
    host = Bounds.of(runs, rows, keys)
    lo, hi, seen = (torch.from_numpy(x).to(device) for x in (host.lo, host.hi, host.seen))
    return lo, hi, seen.to(torch.int16)


def launch(work: Work, tile: Tile, q: Tensor, block: Block, tensors: list[Rows]) -> None:
    """Grid: batch x heads first, so that the heads of a group, which share keys, run together."""
    (batch, heads, rows, _), (_, key_heads, keys, _) = q.shape, block.k.shape
    side = Side(work.kernel, rows, keys, tile, q.device)
    width = batch * (key_heads if work.kernel == "dkdv" else heads)
    for part in tile.parts(work.kernel):
        seen = seen_for(tuple(block.runs), replace(side, steps=part.steps))
        if not width or not len(seen.table):
            continue
        kernel = kernel_for(work.kernel, tile, part)
        if kernel is dkdv_full_kernel:
            triton.set_allocator(_scratch)
            tensors = [aligned(x) if place in DESCRIBED else x for place, x in enumerate(tensors)]
        arguments = (*tensors, seen, Score(block.scale, block.softcap or 1.0), heads, heads // key_heads)
        fixed = constants(work, tile, part, kernel.arg_names)
        with torch.cuda.device_of(q):
            kernel[(width, len(seen.table))](*arguments, **fixed, **options(tile))


def kernel_for(kernel: str, tile: Tile, part: Part) -> Any:
    """What is launched for a part of a kernel's run."""
    return dkdv_full_kernel if tile.described and (kernel, part.steps) == ("dkdv", "full") else KERNELS[kernel]


def aligned(x: Rows) -> Rows:
    """As descriptors take it; a copy, with room at the end of each row, where address or strides are not."""
    tensor: Tensor = x.at
    item, size = tensor.element_size(), tensor.shape[-1]
    if tensor.data_ptr() % DESCRIPTOR_BYTES == 0 and all(x and x * item % DESCRIPTOR_BYTES == 0 for x in x[1:]):
        return x
    room = -(-size * item // DESCRIPTOR_BYTES) * DESCRIPTOR_BYTES // item
    return rows_of(tensor.new_empty(*tensor.shape[:-1], room)[..., :size].copy_(tensor))


def _scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    """Where a launch puts its descriptors, in stream order. torch aligns to more than Triton asks for."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def constants(work: Work, tile: Tile, part: Part, names: list[str]) -> dict[str, Any]:
    """What a kernel with arguments of these names is compiled for. The audit compiles with the same."""
    known = {
        "D": work.shape.head,
        "E": work.shape.values,
        "CAPPED": work.capped,
        "PRECISION": tile.precision,
        "BLOCK_Q": tile.block_q,
        "BLOCK_K": tile.block_k,
        "STEPS": part.steps,
        "HELD": tile.held,
        "WIDEST": tile.widest,
        "GRADIENTS": part.gradients,
    }
    return {name: value for name, value in known.items() if name in names}


def options(tile: Tile) -> dict[str, Any]:
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def timer(work: Work, device: torch.device) -> Callable[[Tile], float]:
    """Milliseconds of a launch with a tile over a full square of TIMED_ROWS; inf for a tile that cannot run."""
    q, block, tensors = _timed(work, device)

    def milliseconds(tile: Tile) -> float:
        from triton.runtime.errors import OutOfResources, PTXASError
        from triton.testing import do_bench

        try:
            return float(do_bench(lambda: launch(work, tile, q, block, tensors), return_mode="median"))
        except (OutOfResources, PTXASError):
            return inf

    return milliseconds


def _timed(work: Work, device: torch.device) -> tuple[Tensor, Block, list[Rows]]:
    draw = torch.Generator(device).manual_seed(0)
    dtype = next(dtype for dtype, name in DTYPES.items() if name == work.dtype)
    d, e = work.shape.head, work.shape.values

    def made(heads: int, size: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(1, heads, TIMED_ROWS, size, generator=draw, device=device, dtype=kind)

    q, k, v = made(TIMED_HEADS, d), made(TIMED_KEY_HEADS, d), made(TIMED_KEY_HEADS, e)
    row = made(TIMED_HEADS, 1, torch.float32)[..., 0]
    whole = (Run(0, TIMED_ROWS, 0, TIMED_ROWS, 0, 0),)
    written = {
        "forward": lambda: [made(TIMED_HEADS, e, torch.float32), row, row.exp()],
        "dq": lambda: [made(TIMED_HEADS, e), row + 16, row, made(TIMED_HEADS, d, torch.float32)],
        "dkdv": lambda: [
            made(TIMED_HEADS, e),
            row + 16,
            row,
            made(TIMED_KEY_HEADS, d, torch.float32),
            made(TIMED_KEY_HEADS, e, torch.float32),
        ],
    }[work.kernel]()
    block = Block(k, v, whole, d**-0.5, 30.0 if work.capped else None)
    return q, block, [rows_of(x) for x in (q, k, v, *written)]


def rows_of(x: Tensor) -> Rows:
    """A tensor as a kernel takes it: with its strides."""
    batch, head, row = x.stride()[:3]
    return Rows(x, batch, head, row)
