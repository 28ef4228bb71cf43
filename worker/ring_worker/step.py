"""One training step: gradients of this rank's tokens, summed over every rank, and the same update everywhere.

The loss is the sum over valid tokens divided by their number over all ranks and micro-batches, so it does not depend
on how the tokens are spread, and a rank without a valid token is legal. One small reduction carries the loss, and with
it what the ranks must agree on: whether one of them is to stop, and whether it is time for a checkpoint.

On every so many steps the first sequence is probed: one layer's attention, of a few rows, is computed again densely.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attend import Watch
from ring_worker.build import Parts
from ring_worker.checkpoint import Progress
from ring_worker.contract import RunConfig
from ring_worker.errors import DivergedError
from ring_worker.loss import chunked_cross_entropy
from ring_worker.optim import clip_by_global_norm, learning_rate, set_learning_rate
from ring_worker.telemetry.record import UNPROBED, Probes


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a rank asks of all: `stop` after this step, with a checkpoint; `save` one in any case."""

    stop: bool = False
    save: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """`loss`: mean nats per valid token of this step, over all ranks. `wishes`: of any rank. `seconds`: wall time.

    `watch`: what a probe found on this rank; None where the step was not probed.
    """

    loss: float
    grad_norm: float
    lr: float
    seconds: float
    wishes: Wishes
    watch: Watch | None = None

    @property
    def probes(self) -> Probes:
        found = self.watch and self.watch.found
        return Probes(found.rows, found.mismatches) if found else UNPROBED


def train_step(parts: Parts, progress: Progress, wishes: Callable[[], Wishes]) -> StepResult:
    """Make the step after `progress.step`; `wishes` is asked once the gradients are there.

    Raises DivergedError before any weight is touched by what is no number.
    """
    started = time.monotonic()
    training = parts.config.training
    watch = draw_watch(parts.config, progress.step + 1)
    parts.gradients.zero_()
    own = sum((_backward(parts, index, watch) for index in _own_sequences(parts, progress)), _zeros(parts, 2))
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
    return StepResult(loss, norm, lr, time.monotonic() - started, Wishes(stop > 0, save > 0), watch)


def mismatch_warning(step: int, watch: Watch | None) -> str | None:
    """What to tell people of a probe that found attention wrong; None where all is well."""
    found = watch and watch.found
    if watch is None or not found or not found.mismatches:
        return None
    return (
        f"step {step}: attention of layer {watch.layer} is wrong in {found.mismatches} of the {found.rows} rows probed "
        f"on this rank, by up to {found.worst:.3g} of their size: a kernel, a link or memory is at fault. "
        "Stop the job, and go on elsewhere from a checkpoint no newer than the last sound probe."
    )


def _own_sequences(parts: Parts, progress: Progress) -> range:
    """Numbers of the sequences of this step that belong to this data rank, one after the other."""
    first = progress.sequences
    return range(first + parts.mesh.data_rank, first + parts.config.training.batch, parts.config.degrees.data)


def draw_watch(config: RunConfig, step: int) -> Watch | None:
    """Which layer is probed in this step, drawn alike on all ranks."""
    probe = config.training.probe
    if not probe.every_steps or step % probe.every_steps:
        return None
    drawn = random.Random(f"probe {config.training.seed} {step}")
    return Watch(drawn.randrange(config.model.layers), probe.rows, drawn.randrange(2**31))


def _backward(parts: Parts, sequence: int, watch: Watch | None) -> Tensor:
    """Add the gradients of one sequence; [sum of nats, valid tokens] of this rank's tokens."""
    shard = parts.sharder.shard(parts.dataset.training(sequence))
    hidden = parts.hidden(shard, watch)
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
