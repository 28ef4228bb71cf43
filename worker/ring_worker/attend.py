"""The attention that the model is given: the manifest's layer kinds as masks, over a ring or on one device alone."""

from __future__ import annotations

from ring_worker import contract
from ring_worker.attention.function import ring_attention
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Mask
from ring_worker.attention.ring import Ring
from ring_worker.model import Attend


def layer_masks(model: contract.Model, documents: tuple[int, ...] = ()) -> tuple[Mask, ...]:
    """A causal mask a layer, by the pattern repeated over the depth; `documents`: starts that no query looks behind."""
    pattern = model.attention
    kinds = {
        "full": Mask(documents=documents),
        "window": Mask(window=pattern.window, documents=documents),
        "chunk": Mask(chunk=pattern.chunk, documents=documents),
    }
    return tuple(kinds[pattern.pattern[i % len(pattern.pattern)]] for i in range(model.layers))


def over_ring(ring: Ring, masks: tuple[Mask, ...]) -> Attend:
    """Attention of this rank's queries over the whole sequence, which lies over `ring`."""
    return lambda layer, q, k, v: ring_attention(q, k, v, ring, masks[layer])


def alone(masks: tuple[Mask, ...]) -> Attend:
    """Attention over sequences that are whole on this device, of any length."""
    return lambda layer, q, k, v: ring_attention(q, k, v, Ring(Layout("contiguous", q.shape[2], 1)), masks[layer])
