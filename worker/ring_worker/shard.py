"""A window of the text -> what one rank of a ring computes on.

Labels are shifted before anything is sharded, and tokens, labels and positions go through the same ranges, so no rank
needs a neighbour's token. Only the rank's own ranges are read from the shards on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.layout import Layout
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


@dataclass(frozen=True, slots=True)
class Sharder:
    """Cuts windows for the rank at `position` of a ring. `packing`: documents (positions start anew) | concatenate."""

    layout: Layout
    position: int
    packing: str
    device: torch.device

    def shard(self, window: Window) -> Shard:
        ranges = self.layout.ranges(self.position)
        positions = self.layout.positions(self.position)
        documents = window.document_starts if self.packing == DOCUMENTS else ()
        if documents:
            starts = np.asarray(documents)
            positions = positions - starts[np.searchsorted(starts, positions, side="right") - 1]
        tokens, labels = (self._on_device(x) for x in (window.tokens(ranges), window.labels(ranges)))
        return Shard(tokens[None], labels, self._on_device(positions), documents)

    def _on_device(self, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)
