"""What a person wants to know of a run at this moment: events added up, numbers put into words."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ring_operator.local.events import Advanced, Event, Preparing, Restarting, Started, Stepped, Stopping, Waiting
from ring_operator.plan import ParallelPlan
from ring_worker.contract import MetricsLine, PreparationProgress

_BARS = "▁▂▃▄▅▆▇█"
_LINES_KEPT = 400
_LINES_FOR_SPEED = 20
_RINGS_NAMED = 4
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step, as far as it is known. `efficiencies`: (ring, efficiency). `seconds`: of training so far.

    `left`: seconds to the end, where others have reckoned them. `heldout`: bits per byte.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float | None
    tokens_per_second: float | None
    efficiencies: tuple[tuple[int, float], ...]
    heldout: float | None = None
    seconds: float = 0.0
    left: float | None = None


def step_of(event: Stepped | Advanced) -> Step:
    if isinstance(event, Stepped):
        return _step_of_line(event.line)
    progress = event.progress
    of_rings = tuple((r.index, r.efficiency) for r in event.rings if r.efficiency is not None)
    of_all = ((0, progress.efficiency),) if progress.efficiency is not None else ()
    return Step(
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=event.epoch,
        loss=progress.loss,
        tokens_per_second=progress.tokens_per_second,
        efficiencies=of_rings or of_all,
        left=progress.eta_seconds,
    )


def _step_of_line(line: MetricsLine) -> Step:
    return Step(
        step=line.step,
        total_steps=line.total_steps,
        epoch=line.epoch,
        loss=line.loss,
        tokens_per_second=line.tokens_per_second,
        efficiencies=tuple((r.index, r.efficiency) for r in line.rings if r.efficiency is not None),
        heldout=line.heldout_bits_per_byte,
        seconds=line.seconds,
    )


@dataclass(slots=True)
class Progress:
    """A run so far. `phase`: what happens now, in a few words. `heldout`: step and bits per byte, newest last."""

    phase: str = "starting"
    preparation: PreparationProgress | None = None
    lines: deque[Step] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))
    heldout: list[tuple[int, float]] = field(default_factory=list)
    restarts: int = 0
    trouble: str = ""

    @property
    def newest(self) -> Step | None:
        return self.lines[-1] if self.lines else None

    def add(self, event: Event) -> None:
        match event:
            case Preparing(progress):
                self.phase = "preparing the data"
                self.preparation = progress or self.preparation
            case Started(epoch, ranks, restarts):
                self.phase = f"starting {ranks} rank{'s' if ranks != 1 else ''}, epoch {epoch}"
                self.restarts = restarts
            case Stepped() | Advanced():
                self._add_step(step_of(event))
            case Waiting(message):
                self.phase = message
            case Restarting(message):
                self.phase = "restarting"
                self.trouble = message
            case Stopping():
                self.phase = "stopping: saving a checkpoint (Ctrl-C again to end at once)"

    def _add_step(self, step: Step) -> None:
        """After a restart steps come again; the ones they replace are forgotten."""
        while self.lines and self.lines[-1].step >= step.step:
            self.lines.pop()
        self.lines.append(step)
        if not self.phase.startswith("stopping"):
            self.phase = "training" if step.step < step.total_steps else "finishing: sample, report, picture"
        if step.heldout is not None:
            self.heldout.append((step.step, step.heldout))

    def seconds_left(self) -> float | None:
        """As told, or at the pace of the last steps, evaluation and saving left out. None: not known yet."""
        if self.newest is not None and self.newest.left is not None:
            return self.newest.left
        recent = list(self.lines)[-_LINES_FOR_SPEED:]
        if len(recent) < 2 or not recent[-1].seconds:
            return None
        first, last = recent[0], recent[-1]
        return (last.total_steps - last.step) * (last.seconds - first.seconds) / (last.step - first.step)


def plan_line(plan: ParallelPlan) -> str:
    degrees = plan.degrees
    device = "GPUs over NCCL" if plan.device == "cuda" else "CPU processes over gloo"
    heads = f" (ulysses {degrees.ulysses} x ring {degrees.ring})" if degrees.ulysses > 1 else ""
    return (
        f"{plan.world_size} {device}: data {degrees.data} x context {degrees.context}{heads}, {plan.layout}, "
        f"{plan.length:,} tokens a sequence, {plan.tokens_per_rank:,} a rank"
    )


def preparation_line(progress: PreparationProgress) -> str:
    skipped = f", {progress.skipped:,} skipped" if progress.skipped else ""
    return (
        f"{progress.files:,} of {progress.total_files:,} files, "
        f"{progress.bytes / _MIB:.1f} of {progress.total_bytes / _MIB:.1f} MiB{skipped}"
    )


def rings_line(step: Step) -> str:
    """Ring efficiency: ideal over wall time of the attention. Empty where nothing was measured."""
    found = step.efficiencies
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0][1]:.2f}"
    if len(found) <= _RINGS_NAMED:
        return ", ".join(f"{value:.2f} (ring {index})" for index, value in found)
    values = [value for _, value in found]
    return f"{min(values):.2f} to {max(values):.2f} ({len(values)} rings)"


def duration(seconds: float) -> str:
    """4:05, or 1:04:05 above an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as `width` bars or fewer, each the mean of its share."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [i * len(values) // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((mean - low) * scale)] for mean in means)
