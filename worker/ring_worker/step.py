"""One training step: gradients of this rank's tokens, summed over every rank, and the same update everywhere.

The loss is the sum over valid tokens divided by their number over all ranks and micro-batches, so it does not depend
on how the tokens are spread, and a rank without a valid token is legal. One small reduction carries the loss, and with
it what the ranks must agree on: whether one of them is to stop, and whether it is time for a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.build import Parts
from ring_worker.checkpoint import Progress
from ring_worker.errors import DivergedError
from ring_worker.loss import chunked_cross_entropy
from ring_worker.optim import clip_by_global_norm, learning_rate, set_learning_rate


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a rank asks of all: `stop` after this step, with a checkpoint; `save` one in any case."""

    stop: bool = False
    save: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """`loss`: mean nats per valid token of this step, over all ranks. `wishes`: of any rank. `seconds`: wall time."""

    loss: float
    grad_norm: float
    lr: float
    seconds: float
    wishes: Wishes


def train_step(parts: Parts, progress: Progress, wishes: Callable[[], Wishes]) -> StepResult:
    """Make the step after `progress.step`; `wishes` is asked once the gradients are there.

    Raises DivergedError before any weight is touched by what is no number.
    """
    started = time.monotonic()
    training = parts.config.training
    parts.gradients.zero_()
    own = sum((_backward(parts, index) for index in _own_sequences(parts, progress)), _zeros(parts, 2))
    wish = wishes()
    totals = torch.cat([own, torch.tensor([wish.stop, wish.save], dtype=torch.float64, device=own.device)])
    dist.all_reduce(totals, group=parts.mesh.world)
    dist.all_reduce(parts.gradients, group=parts.mesh.world)
    nats, count, stop, save = totals.tolist()
    parts.gradients.div_(max(count, 1.0))
    norm = float(clip_by_global_norm(parts.model.parameters(), training.optimizer.clip_norm))
    loss = nats / max(count, 1.0)
    _require_finite(progress.step + 1, loss, norm, training.optimizer.lr)
    lr = learning_rate(training.schedule, training.optimizer, progress.step, training.steps)
    set_learning_rate(parts.optimizer, lr)
    parts.optimizer.step()
    return StepResult(loss, norm, lr, time.monotonic() - started, Wishes(stop > 0, save > 0))


def _own_sequences(parts: Parts, progress: Progress) -> range:
    """Numbers of the sequences of this step that belong to this data rank, one after the other."""
    first = progress.sequences
    return range(first + parts.mesh.data_rank, first + parts.config.training.batch, parts.config.degrees.data)


def _backward(parts: Parts, sequence: int) -> Tensor:
    """Add the gradients of one sequence; [sum of nats, valid tokens] of this rank's tokens."""
    shard = parts.sharder.shard(parts.dataset.training(sequence))
    hidden = parts.hidden(shard)
    nats, count = chunked_cross_entropy(
        hidden, parts.model.head_weight, shard.labels, parts.loss_chunk, parts.model.vocabulary
    )
    nats.backward()
    return torch.stack([nats.detach().double(), count.double()])


def _zeros(parts: Parts, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64, device=parts.mesh.device)


def _require_finite(step: int, loss: float, norm: float, lr: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"step {step}: the loss is {loss} and the gradient norm {norm}. The training has diverged: lower "
            f"training.optimizer.lr ({lr:g}) or lengthen training.schedule.warmupSteps, and go on from a checkpoint."
        )
