"""How well the model predicts text it has never been trained on: bits per byte of the held-out documents."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist

from ring_worker.build import Parts
from ring_worker.errors import DivergedError
from ring_worker.loss import IGNORED, token_losses


@torch.no_grad()
def held_out_bits_per_byte(parts: Parts, alive: Callable[[], None], sequences: int | None = None) -> float:
    """Over at most `sequences` windows, evenly spread, or over all of them: then every held-out byte counts once.

    Every rank calls it. Windows are shared out over the data ranks; each is spread over a ring like any sequence.
    `alive` is called after each. Raises DivergedError if the result is no number.
    """
    windows = parts.dataset.held_out_sequences
    count = windows if sequences is None else min(sequences, windows)
    chosen = [i * windows // count for i in range(count)]
    degree = parts.config.degrees.data
    totals = torch.zeros(2, dtype=torch.float64, device=parts.mesh.device)
    with parts.ring.meter.pause():
        for i in chosen[parts.mesh.data_rank :: degree]:
            totals += _losses(parts, i)
            alive()
    dist.all_reduce(totals, group=parts.mesh.world)
    bits = parts.dataset.bits_per_byte(float(totals[0]), int(totals[1]))
    if not math.isfinite(bits):
        raise DivergedError(
            f"the loss over held-out text is {bits}: the training has diverged. Lower the learning rate."
        )
    return bits


def _losses(parts: Parts, index: int) -> torch.Tensor:
    """[sum of -ln p, labels] of this rank's tokens of held-out window `index`."""
    shard = parts.sharder.shard(parts.dataset.held_out(index))
    hidden = parts.hidden(shard)
    losses = token_losses(hidden, parts.model.head_weight, shard.labels, parts.loss_chunk, parts.model.vocabulary)
    return torch.stack([losses.sum(dtype=torch.float64), (shard.labels != IGNORED).sum().double()])
