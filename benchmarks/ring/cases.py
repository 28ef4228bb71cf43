"""What all parts of the benchmark measure on: masks by name, tensors, and the one kernel to compare with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention import CAUSAL, FULL, Blocks, Mask

HEADS, GROUPS, SIZE = 8, 2, 64
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def masks(length: int) -> dict[str, Mask]:
    """Of each kind, in sizes that fit a sequence of `length` tokens."""
    return {
        "causal": CAUSAL,
        "full": FULL,
        "window": Mask(window=max(1, length // 32)),
        "window + 16 global": Mask(window=max(1, length // 32), global_tokens=16),
        "documents": Mask(documents=documents(length)),
        "chunk": Mask(chunk=max(1, length // 8)),
        "prefix": Mask(prefix=length // 4),
        "block-sparse": Mask(blocks=_blocks(length)),
    }


def documents(length: int, mean: int = 2048) -> tuple[int, ...]:
    """Starts of documents of random lengths around `mean` tokens, the same each time."""
    draw = np.random.default_rng(0)
    starts = np.cumsum(draw.exponential(mean, size=2 + 4 * length // mean).astype(int) + 1)
    return (0, *(int(s) for s in starts if s < length))


def _blocks(length: int, parts: int = 64) -> Blocks:
    """The block before, its own, the first, and one drawn at random: a list that no interval says."""
    size, draw = -(-length // parts), np.random.default_rng(0)
    return Blocks(
        size, size, tuple(tuple(sorted({0, max(0, i - 1), i, int(draw.integers(i + 1))})) for i in range(parts))
    )


def tensors(length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v and the output's gradient, whole."""
    make = torch.Generator().manual_seed(0)
    shapes = [(1, HEADS, length, SIZE), (1, GROUPS, length, SIZE), (1, GROUPS, length, SIZE), (1, HEADS, length, SIZE)]
    return [torch.randn(shape, generator=make).to(dtype) for shape in shapes]


def one_kernel(mask: Mask, length: int) -> tuple[str, Attend]:
    """(what it is, attention over the whole sequence with torch's CPU kernel): the fastest way that torch has here."""
    attend = partial(torch.nn.functional.scaled_dot_product_attention, enable_gqa=True)
    if mask == FULL:
        return "sdpa", attend
    if mask == CAUSAL:
        return "sdpa causal", partial(attend, is_causal=True)
    if mask == Mask(documents=mask.documents):
        return "sdpa a document", partial(_by_document, starts=(*mask.documents, length))
    return "sdpa with a mask", partial(attend, attn_mask=visible(mask, length))


def _by_document(q: Tensor, k: Tensor, v: Tensor, starts: tuple[int, ...]) -> Tensor:
    sizes = [b - a for a, b in pairwise(starts)]
    parts = zip(*(x.split(sizes, 2) for x in (q, k, v)), strict=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    return torch.cat([attend(*part, is_causal=True, enable_gqa=True) for part in parts], dim=2)


def visible(mask: Mask, length: int) -> Tensor:
    """bool [S, S]."""
    keys, seen = np.arange(length), np.zeros((length, length), dtype=bool)
    for lo, hi in mask.terms(np.arange(length), length):
        seen |= (keys >= lo[:, None]) & (keys < hi[:, None])
    return torch.from_numpy(seen)


def timed(attend: Attend, q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> tuple[float, float]:
    """(forward, backward) seconds."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    start = time.perf_counter()
    o = attend(q, k, v)
    middle = time.perf_counter()
    torch.autograd.grad(o, (q, k, v), do)
    return middle - start, time.perf_counter() - middle


def median(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of each phase by itself."""
    forward, backward = zip(*pairs, strict=True)
    return statistics.median(forward), statistics.median(backward)
