"""One rank's place in a ring, and what is kept there between passes.

The place says how the sequence lies over the ranks, how blocks travel and in which order, and which kernel computes.
It owns the travelling buffers, which are made once and used by every layer: two for keys (four in a ring of rings,
where a block crosses to the next inner ring while another goes round), whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.fastest import Shape
from ring_worker.attention.kernels.interface import Kernel
from ring_worker.attention.layout import Layout
from ring_worker.attention.meter import Meter
from ring_worker.attention.route import Route
from ring_worker.attention.transport import GlooTransport, NcclTransport, Solo, Transport


@dataclass(slots=True)
class Ring:
    """One rank's place in a ring. Reused by every layer.

    `inner`: ranks of an inner ring, in a ring of rings; default: all. `heads`: to the ranks that share this place's
    tokens and divide its heads (Ulysses). `rotate`: what travels in the backward pass, keys with their gradients or
    queries with theirs; auto counts the bytes. `gradient_dtype`: in which gradient sums travel; default: that of the
    kernel's state, fp32. `kernel`: default is the fastest for the tensors that come.
    """

    layout: Layout
    transport: Transport = field(default_factory=Solo)
    kernel: Kernel | None = None
    meter: Meter = field(default_factory=Meter)
    inner: int | None = None
    heads: Transport = field(default_factory=Solo)
    rotate: Literal["auto", "keys", "queries"] = "auto"
    gradient_dtype: torch.dtype | None = None
    _buffers: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.transport.size != self.layout.ranks:
            raise ValueError(f"ring: the transport has {self.transport.size} ranks, the layout {self.layout.ranks}")
        if self.rotate not in ("auto", "keys", "queries"):
            raise ValueError(f"ring: rotate {self.rotate!r} is none of auto, keys, queries")
        self.route  # noqa: B018  refuses an inner ring that does not divide the ranks

    @classmethod
    def over(cls, layout: Layout, group: dist.ProcessGroup, **options: Any) -> Ring:
        """The ring of a process group, over its own back end, NCCL or gloo. `options`: the other fields.

        Every rank of the group calls it: with inner rings, NCCL gets a second group for what crosses between them.
        """
        if "nccl" not in str(dist.get_backend(group)):
            return cls(layout, GlooTransport(group), **options)
        outer: Any = None
        if options.get("inner"):
            ranks = dist.get_process_group_ranks(group)
            outer = dist.new_group(ranks, backend="nccl", use_local_synchronization=True)
        return cls(layout, NcclTransport(group, outer), **options)

    @property
    def rank(self) -> int:
        return self.transport.rank

    @property
    def route(self) -> Route:
        return Route(self.layout.ranks, self.inner or self.layout.ranks)

    @property
    def tokens(self) -> int:
        """Tokens that this rank holds outside of attention: its part of what its position in the ring owns."""
        return part_sizes(self.layout.size(self.rank), self.heads.size)[self.heads.rank]

    def kernel_for(self, q: Tensor, whole: Shape | None = None) -> Kernel:
        """`whole`: the shape, if the first block will be all of the attention."""
        return self.kernel or choose(q.device, q.dtype, whole)

    def buffer(self, name: str, key: tuple[Any, ...], make: Callable[[int], Tensor]) -> Tensor:
        """The buffer of this name for tensors of one `key`, made once, for the rank that owns the most tokens."""
        if (name, *key) not in self._buffers:
            self._buffers[(name, *key)] = make(self.layout.most())
        return self._buffers[(name, *key)]

    def release(self) -> None:
        """Give the travelling buffers back; the next pass makes new ones."""
        self._buffers.clear()


def part_sizes(tokens: int, members: int) -> list[int]:
    """How many of a position's tokens each of its members holds."""
    edges = [i * tokens // members for i in range(members + 1)]
    return [b - a for a, b in pairwise(edges)]
