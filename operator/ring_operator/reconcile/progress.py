"""What the agents say of the training -> progress and rings in the status."""

from __future__ import annotations

import math

from ring_operator.observe import Observed
from ring_operator.observe.pods import timestamp_of
from ring_operator.reconcile.view import View
from ring_operator.status.document import Progress, RingStatus
from ring_worker.contract import MetricsLine, RingFigures

MOST = 1e15  # what the status can hold


def progress_of(view: View, seen: Observed | None) -> Progress:
    """What is known now; what no agent says at the moment stays as it was. `seen` None: the training is done."""
    before = view.status.progress or Progress()
    line = metrics_of(view)
    answers = view.answers
    checkpoint = max([before.last_checkpoint_step, *(a.checkpoint_step for a in answers)])
    update: dict[str, object] = {"total_steps": view.plan.steps, "last_checkpoint_step": checkpoint}
    running = [a for a in answers if view.published and a.epoch == view.wanted_epoch]
    if seen is None:
        update |= {"step": view.plan.steps, "eta_seconds": 0}
    elif running and (step := max(a.step for a in running)) >= 0:
        age = min(a.progress_age_seconds for a in running if a.step == step)
        update |= {"step": step}
        if step != before.step or before.last_progress_time is None:
            update |= {"last_progress_time": timestamp_of(view.now - age)}
    if line is not None:
        update |= _figures(line, view.plan.steps)
    return before.model_copy(update=update)


def metrics_of(view: View) -> MetricsLine | None:
    """The newest logged step, from the agent whose pod has rank 0."""
    lines = [answer.metrics for answer in view.answers if answer.metrics is not None]
    return max(lines, key=lambda line: (line.epoch, line.step), default=None)


def _figures(line: MetricsLine, total: int) -> dict[str, object]:
    per_step = line.tokens / line.step if line.step else 0.0
    left = (total - line.step) * per_step / line.tokens_per_second if line.tokens_per_second > 0 else None
    return {
        "tokens": line.tokens,
        "loss": _number(line.loss),
        "tokens_per_second": _number(line.tokens_per_second, 1),
        "efficiency": _number(efficiency(line.rings), 3),
        "eta_seconds": None if left is None else max(0, round(left)),
    }


def efficiency(rings: tuple[RingFigures, ...]) -> float | None:
    wall = sum(ring.wall_seconds for ring in rings)
    return sum(ring.ideal_seconds for ring in rings) / wall if wall > 0 else None


def ring_statuses(view: View) -> tuple[RingStatus, ...]:
    """Of the epoch that runs: nodes in ring order, one entry for neighbours on the same node."""
    if view.table is None or not view.published:
        return ()
    order = [member.node for member in sorted(view.table.members, key=lambda member: member.first_rank)]
    line = metrics_of(view)
    figures = {ring.index: ring for ring in line.rings} if line else {}
    rate = line.tokens_per_second / view.plan.degrees.data if line else None
    return tuple(
        RingStatus(
            index=ring.index,
            nodes=view.plan.nodes_of(ring, order),
            tokens_per_second=_number(rate, 1),
            efficiency=_number(figures[ring.index].efficiency, 3) if ring.index in figures else None,
        )
        for ring in view.plan.rings
    )


def _number(value: float | None, digits: int = 4) -> float | None:
    return round(min(max(value, -MOST), MOST), digits) if value is not None and math.isfinite(value) else None
