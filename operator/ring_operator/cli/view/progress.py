"""What a person wants to know of a run at this moment: events added up, numbers put into words."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ring_operator.local.events import Event, Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.plan import ParallelPlan
from ring_worker.contract import MetricsLine, PreparationProgress

_BARS = "▁▂▃▄▅▆▇█"
_LINES_KEPT = 400
_LINES_FOR_SPEED = 20
_RINGS_NAMED = 4
_MIB = 2**20


@dataclass(slots=True)
class Progress:
    """A run so far. `phase`: what happens now, in a few words. `heldout`: step and bits per byte, newest last."""

    phase: str = "starting"
    preparation: PreparationProgress | None = None
    lines: deque[MetricsLine] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))
    heldout: list[tuple[int, float]] = field(default_factory=list)
    restarts: int = 0
    trouble: str = ""

    @property
    def newest(self) -> MetricsLine | None:
        return self.lines[-1] if self.lines else None

    def add(self, event: Event) -> None:
        match event:
            case Preparing(progress):
                self.phase = "preparing the data"
                self.preparation = progress or self.preparation
            case Started(epoch, ranks, restarts):
                self.phase = f"starting {ranks} rank{'s' if ranks != 1 else ''}, epoch {epoch}"
                self.restarts = restarts
            case Stepped(line):
                self._add_line(line)
            case Restarting(decision):
                self.phase = "restarting"
                self.trouble = decision.message
            case Stopping():
                self.phase = "stopping: saving a checkpoint (Ctrl-C again to end at once)"

    def _add_line(self, line: MetricsLine) -> None:
        """After a restart steps come again; the ones they replace are forgotten."""
        while self.lines and self.lines[-1].step >= line.step:
            self.lines.pop()
        self.lines.append(line)
        if not self.phase.startswith("stopping"):
            self.phase = "training" if line.step < line.total_steps else "finishing: sample, report, picture"
        if line.heldout_bits_per_byte is not None:
            self.heldout.append((line.step, line.heldout_bits_per_byte))

    def seconds_left(self) -> float | None:
        """At the pace of the last lines, evaluation and saving left out. None: not known yet."""
        recent = list(self.lines)[-_LINES_FOR_SPEED:]
        if len(recent) < 2:
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


def rings_line(line: MetricsLine) -> str:
    """Ring efficiency: ideal over wall time of the attention. Empty where nothing was measured."""
    found = [(ring.index, ring.efficiency) for ring in line.rings if ring.efficiency is not None]
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
