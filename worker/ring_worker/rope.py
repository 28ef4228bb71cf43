"""Rotary positions: turn each pair of a head's channels by an angle that grows with the token's position.

In: a `Rope` of the contract and explicit positions, one a token, in any order, for a ring's rank holds tokens from two
or more places of the sequence. Out: tables of cosines and sines, and queries and keys turned by them.

A position may be in the millions, where fp32 holds an angle no better than to a quarter of a radian. So frequencies
and angles stay in fp64, and only their cosines and sines are rounded. The gradient of a turn is the turn back: nothing
is kept for the backward pass but the tables, which all layers share.

Sources: rotary embedding, arXiv 2104.09864; linear interpolation, 2306.15595; by parts and YaRN, 2309.00071; the
stretching of Llama 3.1, 2407.21783 and its released code. Pairs are (i, i + D/2), as in all Llama checkpoints.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ring_worker.contract import Rope

KINDS = ("default", "linear", "ntk", "yarn", "llama3")


def rope_frequencies(rope: Rope, head_dim: int) -> tuple[Tensor, float]:
    """Radians a token of each channel pair, fp64 [head_dim/2] on the CPU, and the factor on cosine and sine.

    * `default`: base^(-2i/d).
    * `linear`: all of them divided by `factor`.
    * `ntk`: by parts, as the YaRN paper defines it (section 3.2, alpha 1, beta 32): pairs that turn at least 32 times
      within `original_length` stay, those that turn less than once are divided by `factor`; linear in turns between.
    * `llama3`: the same with beta 4, the values of every published Llama 3 checkpoint.
    * `yarn`: as its authors released it, which is what checkpoints were trained with: the ramp is linear in the pair's
      index, its ends rounded outwards, and cosine and sine are multiplied by 0.1 ln(factor) + 1.

    Raises ValueError when the kind is unknown or needs an `original_length` that is not given.
    """
    _check(rope, head_dim)
    plain = rope.base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if rope.kind == "default":
        return plain, 1.0
    if rope.kind == "yarn":
        return _blend(plain, rope.factor, _kept_by_index(rope, head_dim)), 0.1 * math.log(rope.factor) + 1.0
    kept = {
        "linear": torch.zeros_like(plain),
        "ntk": _kept_by_turns(plain, rope.original_length, most=32.0),
        "llama3": _kept_by_turns(plain, rope.original_length, most=4.0),
    }[rope.kind]
    return _blend(plain, rope.factor, kept), 1.0


def _check(rope: Rope, head_dim: int) -> None:
    if rope.kind not in KINDS:
        raise ValueError(f"model.rope.kind: {rope.kind!r} is none of {', '.join(KINDS)}")
    if head_dim % 2:
        raise ValueError(f"model.head_dim: {head_dim} is odd, but rotary positions turn pairs of channels")
    if rope.factor < 1.0:
        raise ValueError(f"model.rope.factor: {rope.factor} is below 1, and would shorten the context")
    if rope.kind not in ("default", "linear") and rope.original_length < 1:
        raise ValueError(
            f"model.rope.original_length: {rope.original_length}, but {rope.kind!r} needs the tokens of context "
            f"that the model was trained on before; give them, or use 'linear'"
        )


def _blend(plain: Tensor, factor: float, kept: Tensor) -> Tensor:
    """Share `kept` of the plain frequency, the rest of the interpolated one."""
    return plain * kept + plain / factor * (1.0 - kept)


def _kept_by_turns(plain: Tensor, original_length: int, most: float) -> Tensor:
    turns = original_length * plain / (2.0 * math.pi)
    return ((turns - 1.0) / (most - 1.0)).clamp(0.0, 1.0)


def _kept_by_index(rope: Rope, head_dim: int) -> Tensor:
    first = max(math.floor(_index_of_turns(32.0, rope, head_dim)), 0)
    last = min(math.ceil(_index_of_turns(1.0, rope, head_dim)), head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float64) - first) / max(last - first, 1e-3)
    return 1.0 - ramp.clamp(0.0, 1.0)


def _index_of_turns(turns: float, rope: Rope, head_dim: int) -> float:
    """The (fractional) pair that turns so often within the original length."""
    return head_dim * math.log(rope.original_length / (turns * 2.0 * math.pi)) / (2.0 * math.log(rope.base))


def rotation_tables(
    frequencies: Tensor, scale: float, positions: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., S, D/2] of integer positions [..., S], times `scale`, on the positions' device."""
    angles = positions.to(torch.float64).unsqueeze(-1) * frequencies.to(positions.device)
    return angles.cos().mul_(scale).to(dtype), angles.sin_().mul_(scale).to(dtype)


def rotate(x_BHSD: Tensor, cos_SE: Tensor, sin_SE: Tensor) -> Tensor:
    """`x` turned by the tables (E = D/2), contiguous and of the dtype of `x`; rounded once, whatever that dtype.

    Tables that differ over the batch have shape [B, 1, S, E].
    """
    turned: Tensor = _Rotate.apply(x_BHSD, cos_SE, sin_SE)
    return turned


class _Rotate(torch.autograd.Function):
    """Half the memory traffic of the plain expression, and a third of its allocations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    first, second = x.chunk(2, -1)
    turned_first, turned_second = turned.chunk(2, -1)
    torch.addcmul(first * cos, second, sin, value=-direction, out=turned_first)
    torch.addcmul(second * cos, first, sin, value=direction, out=turned_second)
    return turned
