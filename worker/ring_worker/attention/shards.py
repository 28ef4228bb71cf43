"""A sequence and its shards: `shard` takes a rank's tokens, `unshard` puts the shards of all ranks together again.

`gather` does so over a ring. Tokens, labels and positions go through the same functions, labels after their shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ring_worker.attention.layout import Layout
from ring_worker.attention.ring import Ring
from ring_worker.attention.transport import KEYS, Message


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


@torch.no_grad()
def gather(x: Tensor, ring: Ring, dim: int = 1) -> Tensor:
    """The whole sequence on every rank, of one shard each; every rank calls it. Not differentiable: to look at results.

    Without split heads (`ring.heads`), whose members hold parts of a shard.
    """
    if ring.heads.size > 1:
        raise ValueError(f"gather: {ring.heads.size} members share a position's tokens; gather those first")
    own = x.movedim(dim, 0).contiguous()
    sizes = [ring.layout.size(rank) for rank in range(ring.layout.ranks)]
    shards = [own if rank == ring.rank else own.new_empty((size, *own.shape[1:])) for rank, size in enumerate(sizes)]
    others = [rank for rank, size in enumerate(sizes) if rank != ring.rank and size]
    sends = [Message(own, rank) for rank in range(len(sizes)) if rank != ring.rank and len(own)]
    if sends or others:
        ring.transport.exchange(KEYS, sends, [Message(shards[rank], rank) for rank in others]).wait()
    return unshard(shards, ring.layout, dim=0).movedim(0, dim)
