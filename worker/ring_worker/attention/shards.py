"""A sequence and its shards: `shard` takes a rank's tokens, `unshard` puts the shards of all ranks together again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ring_worker.attention.layout import Layout


def shard(x: Tensor, layout: Layout, rank: int, dim: int = 1) -> Tensor:
    """The tokens of `rank` along `dim`, in ascending order. Tokens, labels and positions are sharded alike."""
    if x.shape[dim] != layout.length:
        raise ValueError(f"shard: dim {dim} has {x.shape[dim]} tokens, but the layout {layout.length}")
    parts = [x.narrow(dim, r.start, r.size) for r in layout.ranges(rank)]
    return torch.cat(parts, dim) if parts else x.narrow(dim, 0, 0)


def unshard(shards: Sequence[Tensor], layout: Layout, dim: int = 1) -> Tensor:
    """The inverse: one shard a rank, in the order of the ranks."""
    sizes = [x.shape[dim] for x in shards]
    expected = [layout.size(rank) for rank in range(layout.ranks)]
    if sizes != expected:
        raise ValueError(f"unshard: shards of {sizes} tokens along dim {dim}, but the layout has {expected}")
    pieces = {}
    for rank, x in enumerate(shards):
        ranges = layout.ranges(rank)
        parts = x.split([r.size for r in ranges], dim) if ranges else ()
        pieces.update({r.start: part for r, part in zip(ranges, parts, strict=True)})
    return torch.cat([pieces[start] for start in sorted(pieces)], dim)
