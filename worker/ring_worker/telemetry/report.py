"""What a run came to, in one frozen value and one file: `report.json`.

In: the lines of the journal, what the last evaluation found, and facts of the run. Out: a `Report`. Ratios are taken
from sums over the whole run, not averaged from those of the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ring_worker.contract import Degrees, MetricsLine, RingFigures
from ring_worker.contract.strict import VERSION, dump
from ring_worker.telemetry.atomic import replace_file


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run is. `finished`: ISO 8601 time; `bytes_per_token`: mean over the training text (1 for bytes)."""

    job: str
    device: str
    world_size: int
    degrees: Degrees
    context_tokens: int
    parameters: int
    restarts: int
    torch_version: str
    finished: str
    bytes_per_token: float = 1.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The last evaluation, in bits per byte of held-out text; None where there was none. `sample` as generated."""

    heldout_bits_per_byte: float | None = None
    unigram_bits_per_byte: float | None = None
    bigram_bits_per_byte: float | None = None
    sample_prompt: str = ""
    sample: str = ""


@dataclass(frozen=True, slots=True)
class RingSummary:
    """One ring over the whole run. `imbalance`: mean over the lines, weighted by their wall time. None: nothing ran.

    `probed_rows`: of attention, computed again densely, of which `probe_mismatches` differed.
    """

    index: int
    efficiency: float | None
    hidden_ratio: float | None
    exposed_fraction: float | None
    imbalance: float
    bytes: int
    wall_seconds: float
    probed_rows: int = 0
    probe_mismatches: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Content of report.json. `seconds`: of training; losses in nats per token, of the first and last logged step."""

    job: str
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    loss_first: float
    loss_last: float
    heldout_bits_per_byte: float | None
    unigram_bits_per_byte: float | None
    bigram_bits_per_byte: float | None
    bytes_per_token: float
    ring: tuple[RingSummary, ...]
    restarts: int
    parameters: int
    context_tokens: int
    world_size: int
    degrees: Degrees
    device: str
    torch_version: str
    finished: str
    sample_prompt: str
    sample: str
    version: int = VERSION


def report_of(lines: Sequence[MetricsLine], facts: RunFacts, evaluated: Evaluated) -> Report:
    """Raises ValueError if no step was logged."""
    if not lines:
        raise ValueError("no step was logged, so there is nothing to report")
    first, last = lines[0], lines[-1]
    return Report(
        job=facts.job,
        steps=last.step,
        tokens=last.tokens,
        seconds=last.seconds,
        tokens_per_second=last.tokens / last.seconds if last.seconds > 0 else 0.0,
        loss_first=first.loss,
        loss_last=last.loss,
        heldout_bits_per_byte=evaluated.heldout_bits_per_byte,
        unigram_bits_per_byte=evaluated.unigram_bits_per_byte,
        bigram_bits_per_byte=evaluated.bigram_bits_per_byte,
        bytes_per_token=facts.bytes_per_token,
        ring=ring_summaries(lines),
        restarts=facts.restarts,
        parameters=facts.parameters,
        context_tokens=facts.context_tokens,
        world_size=facts.world_size,
        degrees=facts.degrees,
        device=facts.device,
        torch_version=facts.torch_version,
        finished=facts.finished,
        sample_prompt=evaluated.sample_prompt,
        sample=evaluated.sample,
    )


def ring_summaries(lines: Sequence[MetricsLine]) -> tuple[RingSummary, ...]:
    """Each ring's figures added up over `lines`, by index."""
    by_index: dict[int, list[RingFigures]] = {}
    for line in lines:
        for figures in line.rings:
            by_index.setdefault(figures.index, []).append(figures)
    return tuple(_summary(_added(figures)) for _, figures in sorted(by_index.items()))


def write_report(path: Path, report: Report) -> None:
    """Write report.json in one instant."""
    replace_file(path, f"{dump(report)}\n".encode())


def _added(figures: Sequence[RingFigures]) -> RingFigures:
    wall = sum(f.wall_seconds for f in figures)
    weighted = sum(f.imbalance * f.wall_seconds for f in figures)
    return RingFigures(
        index=figures[0].index,
        wall_seconds=wall,
        compute_seconds=sum(f.compute_seconds for f in figures),
        comm_seconds=sum(f.comm_seconds for f in figures),
        exposed_seconds=sum(f.exposed_seconds for f in figures),
        skew_seconds=sum(f.skew_seconds for f in figures),
        ideal_seconds=sum(f.ideal_seconds for f in figures),
        bytes=sum(f.bytes for f in figures),
        imbalance=weighted / wall if wall > 0 else 1.0,
        probed_rows=sum(f.probed_rows for f in figures),
        probe_mismatches=sum(f.probe_mismatches for f in figures),
    )


def _summary(total: RingFigures) -> RingSummary:
    return RingSummary(
        index=total.index,
        efficiency=total.efficiency,
        hidden_ratio=total.hidden_ratio,
        exposed_fraction=total.exposed_fraction,
        imbalance=total.imbalance,
        bytes=total.bytes,
        wall_seconds=total.wall_seconds,
        probed_rows=total.probed_rows,
        probe_mismatches=total.probe_mismatches,
    )
