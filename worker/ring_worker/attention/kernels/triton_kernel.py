"""The Triton kernels behind the common interface: checks, tiles by the table or by the clock, and the launches.

Tensors keep their strides, so keys and values may be views into a travelling buffer of another layout; only the head
dim must be contiguous. Read-only inputs where it is not are copied; state and gradients, written in place, are refused.
"""

from __future__ import annotations

import os
from functools import lru_cache

import torch
import triton
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved
from ring_worker.attention.kernels.tile_table import HEAD_SIZES, Shape, Tile, target_of, tile_for
from ring_worker.attention.kernels.triton_launch import DTYPES, launch, rows_of, timer
from ring_worker.attention.kernels.triton_tiles import LOG2E, Rows
from ring_worker.attention.kernels.tuning import Choices, Work, cache_file

ROW_STRIDES = 2**31 // 256  # a tile has at most 256 rows, tuned ones included


class TritonKernel:
    """See `Kernel`. For bf16, fp16 and fp32 on a GPU, and on the CPU under Triton's interpreter.

    `tune`: time the tiles around the table's on this GPU, once, and keep the fastest (`tuning`). False: the table's, so
    that every machine of a generation computes the same bits. Never under the interpreter.
    """

    name = "triton"

    def __init__(self, tune: bool = True) -> None:
        self.tune = tune

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        _check(q_BHQD, block)
        state = [_written(name, getattr(carry, name)) for name in ("acc", "m", "l")]
        inputs = [_read("q", q_BHQD), _read("k", block.k), _read("v", block.v)]
        self._launch("forward", q_BHQD, block, [*inputs, *state])

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        _check(saved.q, block)
        read = {"q": saved.q, "k": block.k, "v": block.v, "do": saved.do}
        inputs = [_read(name, x) for name, x in read.items()]
        inputs += [rows_of(saved.lse * LOG2E.value), rows_of(saved.delta * block.scale)]
        dq, dk, dv = (_written(name, getattr(gradients, name)) for name in ("dq", "dk", "dv"))
        self._launch("dq", saved.q, block, [*inputs, dq])
        self._launch("dkdv", saved.q, block, [*inputs, dk, dv])

    def _launch(self, kernel: str, q: Tensor, block: Block, tensors: list[Rows]) -> None:
        shape = Shape(q.shape[-1], block.v.shape[-1])
        work = Work(kernel, shape, DTYPES[q.dtype], _target(q.device), block.softcap is not None)
        launch(work, self._tile(work, q.device), q, block, tensors)

    def _tile(self, work: Work, device: torch.device) -> Tile:
        row = tile_for(work.kernel, work.shape, work.dtype, work.target, work.capped)
        if not self.tune or device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
            return row
        return _choices(device).tile(work, row, lambda: timer(work, device))


@lru_cache(maxsize=16)
def _target(device: torch.device) -> str:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return target_of(capability, hip=torch.version.hip is not None)


@lru_cache(maxsize=16)
def _choices(device: torch.device) -> Choices:
    versions = f"torch {torch.__version__}, triton {triton.__version__}"
    return Choices(cache_file(torch.cuda.get_device_name(device), versions))


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


def _read(name: str, x: Tensor) -> Rows:
    return _within_reach(name, x if x.stride(-1) == 1 else x.contiguous())


def _written(name: str, x: Tensor) -> Rows:
    if x.dtype != torch.float32:
        raise ValueError(f"{name} is {x.dtype}; the Triton kernel carries fp32")
    if x.ndim == 4 and x.stride(-1) != 1:
        raise ValueError(f"{name} has stride {x.stride(-1)} in its head dim, which must be contiguous")
    return _within_reach(name, x)


def _within_reach(name: str, x: Tensor) -> Rows:
    """Inside a tile offsets are 32 bits wide."""
    stride = x.stride(2)
    if stride >= ROW_STRIDES:
        raise ValueError(
            f"{name} has rows {stride} elements apart; the Triton kernel reaches less than {ROW_STRIDES}. "
            "Hand in a contiguous copy"
        )
    return rows_of(x)
