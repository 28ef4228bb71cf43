"""A window of the text -> what one rank of a ring computes on.

A rank's tokens are those of its place in the ring, or where several ranks share the place and split the heads, its part
of them, in their order, as attention cuts them. Labels are shifted before anything is sharded, and tokens, labels and
positions go through the same ranges, so no rank needs a neighbour's token. Only the rank's own ranges are read from the
shards on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.layout import Layout, Range
from ring_worker.attention.ring import part_sizes
from ring_worker.data.window import Window

DOCUMENTS = "documents"  # the packing that masks at the borders of documents


@dataclass(frozen=True, slots=True)
class Shard:
    """This rank's part of one sequence: `tokens` [1, S], `labels` [S] (-100: none), `positions` [S], all int64.

    `documents`: starts of the packed documents in the whole sequence; empty where they are not kept apart.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    documents: tuple[int, ...]


def ranges_of(layout: Layout, place: int, member: int = 0, members: int = 1) -> tuple[Range, ...]:
    """Positions of `member` of the `members` ranks that share a place of the ring, ascending."""
    sizes = part_sizes(layout.size(place), members)
    first = sum(sizes[:member])
    return tuple(_cut(layout.ranges(place), first, first + sizes[member]))


def _cut(ranges: tuple[Range, ...], first: int, last: int) -> Iterator[Range]:
    """What the tokens `first` .. `last` of all ranges, counted through, are."""
    before = 0
    for start, stop in ranges:
        low, high = start + max(0, first - before), min(stop, start + last - before)
        if low < high:
            yield Range(low, high)
        before += stop - start


@dataclass(frozen=True, slots=True)
class Sharder:
    """Cuts `ranges` of positions out of windows. `packing`: documents (positions start anew) | concatenate."""

    ranges: tuple[Range, ...]
    packing: str
    device: torch.device

    def shard(self, window: Window) -> Shard:
        positions = np.concatenate([np.arange(0), *(np.arange(*r) for r in self.ranges)])
        documents = window.document_starts if self.packing == DOCUMENTS else ()
        if documents:
            starts = np.asarray(documents)
            positions = positions - starts[np.searchsorted(starts, positions, side="right") - 1]
        tokens, labels = (self._on_device(x) for x in (window.tokens(self.ranges), window.labels(self.ranges)))
        return Shard(tokens[None], labels, self._on_device(positions), documents)

    def _on_device(self, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)
