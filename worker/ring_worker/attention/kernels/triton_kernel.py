"""Launches the Triton kernels: tile shapes from the table, the walk from `spans`, both made once for a tuple of runs.

Tensors keep their strides, so keys and values may be views into a travelling buffer of another layout; only the head
dim must be contiguous. Read-only inputs where it is not are copied; state and gradients, written in place, are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved
from ring_worker.attention.kernels.spans import Bounds, key_tiles, query_tiles
from ring_worker.attention.kernels.tile_table import HEAD_SIZES, Shape, Tile, target_of, tile_for
from ring_worker.attention.kernels.triton_backward import dkdv_kernel, dq_kernel
from ring_worker.attention.kernels.triton_forward import forward_kernel
from ring_worker.attention.kernels.triton_tiles import LOG2E, Rows, Score, Seen
from ring_worker.attention.schedule import Run

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


class TritonKernel:
    """See `Kernel`. For bf16, fp16 and fp32 on a GPU, and on the CPU under Triton's interpreter."""

    name = "triton"

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        _check(q_BHQD, block)
        state = [_written(name, getattr(carry, name)) for name in ("acc", "m", "l")]
        _launch("forward", forward_kernel, q_BHQD, block, [_read(q_BHQD), _read(block.k), _read(block.v), *state])

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        _check(saved.q, block)
        inputs = [_read(x) for x in (saved.q, block.k, block.v, saved.do)]
        inputs += [_rows(saved.lse * LOG2E.value), _rows(saved.delta)]
        dq, dk, dv = (_written(name, getattr(gradients, name)) for name in ("dq", "dk", "dv"))
        _launch("dq", dq_kernel, saved.q, block, [*inputs, dq])
        _launch("dkdv", dkdv_kernel, saved.q, block, [*inputs, dk, dv])


@dataclass(frozen=True, slots=True)
class Side:
    """What `seen_for` needs besides the runs, hashable. `kernel` as in the table of tiles."""

    kernel: str
    rows: int
    keys: int
    tile: Tile
    device: torch.device


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
    return Seen(*bounds, torch.from_numpy(table).to(side.device), side.rows, side.keys)


@lru_cache(maxsize=64)
def bounds_for(runs: tuple[Run, ...], rows: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(lo, hi, seen) of `spans.Bounds` on the device, shared by the three kernels."""
    host = Bounds.of(runs, rows, keys)
    lo, hi, seen = (torch.from_numpy(x).to(device) for x in (host.lo, host.hi, host.seen))
    return lo, hi, seen.to(torch.int8)


def _launch(name: str, kernel: Any, q: Tensor, block: Block, tensors: list[Rows]) -> None:
    """Grid: batch x heads first, so that the heads of a group, which share keys, run together."""
    (batch, heads, rows, head_size), (_, key_heads, keys, _) = q.shape, block.k.shape
    shape = Shape(head_size, block.v.shape[-1])
    tile = tile_for(name, shape, DTYPES[q.dtype], _target(q.device))
    seen = seen_for(tuple(block.runs), Side(name, rows, keys, tile, q.device))
    width = batch * (key_heads if name == "dkdv" else heads)
    if not width or not len(seen.table):
        return
    with torch.cuda.device_of(q):
        kernel[(width, len(seen.table))](
            *tensors,
            seen,
            Score(block.scale, block.softcap or 1.0),
            heads,
            heads // key_heads,
            D=shape.head,
            E=shape.values,
            CAPPED=block.softcap is not None,
            PRECISION=tile.precision,
            BLOCK_Q=tile.block_q,
            BLOCK_K=tile.block_k,
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )


@lru_cache(maxsize=16)
def _target(device: torch.device) -> str:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return target_of(capability, hip=torch.version.hip is not None)


def _check(q: Tensor, block: Block) -> None:
    heads, key_heads, head_sizes = q.shape[1], block.k.shape[1], (q.shape[3], block.v.shape[3])
    least, most = HEAD_SIZES
    if q.dtype not in DTYPES or block.k.dtype != q.dtype or block.v.dtype != q.dtype:
        raise ValueError(
            f"q, k, v are {q.dtype}, {block.k.dtype}, {block.v.dtype}; the Triton kernel computes one of {list(DTYPES)}"
        )
    for name, head_size in zip(("head size", "head size of values"), head_sizes, strict=True):
        if not least <= head_size <= most:
            raise ValueError(f"{name} {head_size} is outside {least} .. {most}, which the Triton kernel computes")
    if heads % key_heads:
        raise ValueError(f"{heads} query heads are no multiple of {key_heads} key heads")
    if block.softcap is not None and block.softcap <= 0:
        raise ValueError(f"softcap {block.softcap} is not positive; None is for no cap")
    if block.scale <= 0:
        raise ValueError(f"scale {block.scale} is not positive; the Triton kernel takes the row maximum before scaling")


def _read(x: Tensor) -> Rows:
    return _rows(x if x.stride(-1) == 1 else x.contiguous())


def _written(name: str, x: Tensor) -> Rows:
    if x.dtype != torch.float32:
        raise ValueError(f"{name} is {x.dtype}; the Triton kernel carries fp32")
    if x.ndim == 4 and x.stride(-1) != 1:
        raise ValueError(f"{name} has stride {x.stride(-1)} in its head dim, which must be contiguous")
    return _rows(x)


def _rows(x: Tensor) -> Rows:
    batch, head, row = x.stride()[:3]
    return Rows(x, batch, head, row)
