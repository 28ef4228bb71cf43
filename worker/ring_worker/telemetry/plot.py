"""`loss.png`: how a run learned, beside what counting letters would have reached.

Everything is in bits per byte, so that the training loss, the held-out loss and the two tables (unigram, bigram)
share an axis. Colours are Okabe and Ito's, which people with any colour vision tell apart; shapes and labels say the
same again. matplotlib is imported inside, since only rank 0 at the end of a run needs it, and without pyplot, whose
state is global.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ring_worker.contract import MetricsLine
from ring_worker.telemetry.atomic import replace_file
from ring_worker.telemetry.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _VERMILION, _GREY, _INK = "#0072B2", "#D55E00", "#5A5A5A", "#222222"
_INCHES, _DPI = (9.6, 5.6), 150
_LABEL_HEIGHT = 0.08  # of the axes, with its two lines
_ROUNDS = 20  # until labels stand apart; each halves what is lacking, or better


def draw_loss(path: Path, lines: Sequence[MetricsLine], report: Report) -> None:
    """Write the picture as PNG, in one instant. `lines`: those that `report` was made of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _draw_training(axes, lines, report.bytes_per_token)
    _draw_heldout(axes, lines, report)
    _draw_tables(axes, report)
    _draw_restarts(axes, lines)
    _dress(axes, report)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    replace_file(path, image.getvalue())


def smooth(values: Sequence[float], half: int) -> list[float]:
    """Means over `half` values before and after each; few near the start, to follow the fall."""
    means = []
    for at in range(len(values)):
        near = values[max(0, at - half) : at + min(half, at) + 1]
        means.append(math.fsum(near) / len(near))
    return means


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places moved apart to stand at least `gap` from one another, in their order, each pair about its middle."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for _ in range(_ROUNDS):
        for low, high in itertools.pairwise(order):
            lack = gap - (moved[high] - moved[low])
            if lack > 0:
                moved[low], moved[high] = moved[low] - lack / 2, moved[high] + lack / 2
    return moved


def shape_line(report: Report) -> str:
    """What ran, in a line: ranks, degrees, context, parameters, tokens, time, speed, ring efficiency."""
    degrees = report.degrees
    parts = [
        f"{report.world_size} ranks (data {degrees.data} x context {degrees.context})",
        f"{report.context_tokens:,} tokens of context",
        f"{_short(report.parameters)} parameters",
        f"{_short(report.tokens)} tokens in {_clock(report.seconds)}",
        f"{report.tokens_per_second:,.0f} tokens/s",
    ]
    efficiencies = [ring.efficiency for ring in report.ring if ring.efficiency is not None]
    if efficiencies:
        parts.append(f"ring efficiency {min(efficiencies):.0%}")
    return "  ·  ".join(parts)


def _draw_training(axes: Axes, lines: Sequence[MetricsLine], bytes_per_token: float) -> None:
    steps = [line.step for line in lines]
    bits = [line.loss / math.log(2) / bytes_per_token for line in lines]
    axes.plot(steps, bits, color=_BLUE, alpha=0.3, linewidth=0.8)
    axes.plot(
        steps, smooth(bits, len(bits) // 40), color=_BLUE, linewidth=2.2, label="training (light: each logged step)"
    )


def _draw_heldout(axes: Axes, lines: Sequence[MetricsLine], report: Report) -> None:
    """Evaluations on the way as points; the last one, over all held-out text, with its number beside the axes."""
    found = [(line.step, line.heldout_bits_per_byte) for line in lines if line.heldout_bits_per_byte is not None]
    if report.heldout_bits_per_byte is not None:
        found = [*(point for point in found if point[0] < report.steps), (report.steps, report.heldout_bits_per_byte)]
    axes.plot(
        [step for step, _ in found],
        [bits for _, bits in found],
        color=_VERMILION,
        linewidth=1.2,
        marker="o",
        markersize=6.5,
        markeredgecolor="white",
        label="held-out text",
        clip_on=False,
        zorder=4,
    )


def _draw_tables(axes: Axes, report: Report) -> None:
    """The unigram and the bigram as horizontal lines."""
    for bits in (report.unigram_bits_per_byte, report.bigram_bits_per_byte):
        if bits is not None:
            axes.axhline(bits, color=_GREY, linewidth=1.3, linestyle=(0, (5, 3)), zorder=1)


def _label_right(axes: Axes, report: Report) -> None:
    """Name and number of what the run is compared with, beside the axes and never on one another."""
    low, high = axes.get_ylim()
    labels = [
        (name, bits, colour)
        for name, bits, colour in (
            ("unigram", report.unigram_bits_per_byte, _GREY),
            ("bigram", report.bigram_bits_per_byte, _GREY),
            ("held out", report.heldout_bits_per_byte, _VERMILION),
        )
        if bits is not None
    ]
    places = spread([(bits - low) / (high - low) for _, bits, _ in labels], _LABEL_HEIGHT)
    for (name, bits, colour), place in zip(labels, places, strict=True):
        text = f"{name}\n{bits:.2f}"
        axes.text(1.014, place, text, transform=axes.transAxes, va="center", color=colour, fontweight="bold")


def _draw_restarts(axes: Axes, lines: Sequence[MetricsLine]) -> None:
    """A vertical line where the epoch changes from one logged step to the next."""
    steps = [after.step for before, after in itertools.pairwise(lines) if after.epoch != before.epoch]
    for step in steps:
        label = f"restart ({len(steps)})" if step == steps[0] else None
        axes.axvline(step, color=_INK, linewidth=1.1, linestyle=":", label=label)


def _dress(axes: Axes, report: Report) -> None:
    axes.set_title(report.job, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=26)
    axes.text(0, 1.03, shape_line(report), transform=axes.transAxes, fontsize=8.5, color=_GREY)
    axes.set_xlabel(f"step, of {_short(report.tokens / report.steps)} tokens each")
    axes.set_ylabel("bits per byte")
    axes.set_xlim(0, report.steps)
    axes.set_ylim(bottom=max(0.0, math.floor(2 * axes.dataLim.y0) / 2 - 0.5))
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    _label_right(axes, report)


def _short(count: float) -> str:
    """A count in three digits or so: 812, 16.4 k, 0.84 M."""
    for size, name in ((1e9, "G"), (0.1e6, "M"), (1e4, "k")):
        if count >= size:
            unit = {"G": 1e9, "M": 1e6, "k": 1e3}[name]
            return f"{count / unit:.3g} {name}"
    return f"{count:,.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
