"""The attention that the model is given: the manifest's layer kinds as masks, over a ring or on one device alone.

Over a ring it can be watched: what one layer gave is then compared with a few rows that are computed densely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ring_worker import contract
from ring_worker.attention.function import ring_attention
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Mask
from ring_worker.attention.probe import Probed, probe
from ring_worker.attention.ring import Ring
from ring_worker.model import Attend
from ring_worker.rounding import without_autocast


def layer_masks(model: contract.Model, documents: tuple[int, ...] = ()) -> tuple[Mask, ...]:
    """A causal mask a layer, by the pattern repeated over the depth; `documents`: starts that no query looks behind."""
    pattern = model.attention
    kinds = {
        "full": Mask(documents=documents),
        "window": Mask(window=pattern.window, global_tokens=pattern.global_tokens, documents=documents),
        "chunk": Mask(chunk=pattern.chunk, documents=documents),
    }
    return tuple(kinds[pattern.pattern[i % len(pattern.pattern)]] for i in range(model.layers))


@dataclass(slots=True)
class Watch:
    """Which layer is probed, in how many rows of the sequence, and with which seed, all alike on the ranks of a ring.

    `found`: what the probe said of those rows that this rank has, once the layer was computed.
    """

    layer: int
    rows: int
    seed: int
    found: Probed | None = None


def over_ring(ring: Ring, masks: tuple[Mask, ...], soft_cap: float | None = None, watch: Watch | None = None) -> Attend:
    """Attention of this rank's queries over the whole sequence, which lies over `ring`."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
        o: Tensor = ring_attention(q, k, v, ring, masks[layer], softcap=soft_cap, sinks=sinks)
        if watch is not None and watch.found is None and watch.layer == layer:  # once, not where it is recomputed
            _look(watch, (q, k, v, o), ring, masks[layer], softcap=soft_cap, sinks=sinks)
        return o

    return attend


@torch.no_grad()
def _look(watch: Watch, qkvo: tuple[Tensor, ...], ring: Ring, mask: Mask, **options: Any) -> None:
    """Every rank of the ring takes part. Autocast would round what is to be the truth; the meter is of training."""
    q, k, v, o = qkvo
    with without_autocast(q), ring.meter.pause():
        watch.found = probe(q, k, v, o, ring, mask, rows=watch.rows, seed=watch.seed, **options)


def alone(masks: tuple[Mask, ...], soft_cap: float | None = None) -> Attend:
    """Attention over sequences that are whole on this device, of any length."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
        ring = Ring(Layout("contiguous", q.shape[2], 1))
        o: Tensor = ring_attention(q, k, v, ring, masks[layer], softcap=soft_cap, sinks=sinks)
        return o

    return attend
