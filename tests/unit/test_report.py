"""report.json and loss.png: made from the journal alone, with ratios of sums."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.contract import Degrees, MetricsLine, RingFigures
from ring_worker.telemetry.plot import draw_loss, shape_line, smooth, spread
from ring_worker.telemetry.report import Evaluated, Report, RunFacts, report_of, ring_summaries, write_report

FACTS = RunFacts("quickstart", "cpu", 4, Degrees(context=4), 4096, 840_000, 1, "2.15.0", "2026-01-02T03:04:05Z")
EVALUATED = Evaluated(2.75, 4.75, 3.5, "def ", "add(a, b):")


def ring(wall: float, ideal: float, index: int = 0, imbalance: float = 1.0) -> RingFigures:
    return RingFigures(index, wall, ideal, wall / 2, wall / 8, 0.0, ideal, 100, imbalance)


def line(step: int, *rings: RingFigures, epoch: int = 1, heldout: float | None = None) -> MetricsLine:
    return MetricsLine(step, 40, 4.0 / step, 1e-3, 1.0, step * 100, step * 0.5, 200.0, epoch, rings, heldout)


def report(*lines: MetricsLine) -> Report:
    return report_of(lines, FACTS, EVALUATED)


def test_the_file_says_what_the_foundation_asks_for(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", report(line(1, ring(2.0, 1.0)), line(40, ring(2.0, 1.5))))
    found = json.loads((tmp_path / "report.json").read_text())
    expected = {
        "steps": 40,
        "tokens": 4000,
        "seconds": 20.0,
        "tokens_per_second": 200.0,
        "heldout_bits_per_byte": 2.75,
        "unigram_bits_per_byte": 4.75,
        "bigram_bits_per_byte": 3.5,
        "restarts": 1,
        "sample": "add(a, b):",
        "parameters": 840_000,
        "world_size": 4,
        "device": "cpu",
        "torch_version": "2.15.0",
        "finished": "2026-01-02T03:04:05Z",
        "loss_first": 4.0,
        "loss_last": 0.1,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["degrees"]["context"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_ratios_are_of_sums_and_not_means_of_ratios() -> None:
    probed = dataclasses.replace(ring(1.0, 1.0), probed_rows=8, probe_mismatches=1)
    (summary,) = ring_summaries([line(1, probed), line(2, ring(9.0, 1.0, imbalance=2.0)), line(3)])
    assert (summary.probed_rows, summary.probe_mismatches) == (8, 1)
    assert summary.efficiency == pytest.approx(0.2)
    assert (summary.hidden_ratio, summary.exposed_fraction, summary.bytes) == (0.75, 0.125, 200)
    assert summary.imbalance == pytest.approx(1.9)


def test_each_ring_has_a_summary_in_order() -> None:
    lines = [line(1, ring(1.0, 0.5, 1), ring(1.0, 0.25, 0))]
    assert [(s.index, s.efficiency) for s in ring_summaries(lines)] == [(0, 0.25), (1, 0.5)]


def test_a_run_without_attention_has_null_ratios_in_its_file(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", report(line(1, ring(0.0, 0.0))))
    assert json.loads((tmp_path / "report.json").read_text())["ring"][0]["efficiency"] is None


def test_nothing_logged_is_nothing_to_report() -> None:
    with pytest.raises(ValueError, match="no step was logged"):
        report()


@pytest.mark.parametrize(
    "lines",
    [
        [line(1)],
        [line(step, ring(1.0, 0.5), heldout=3.0 if step % 10 == 0 else None) for step in range(1, 41)],
        [line(step, epoch=1 + step // 15) for step in range(1, 41)],
    ],
    ids=["one line", "evaluated", "restarted twice"],
)
@pytest.mark.parametrize("evaluated", [Evaluated(), EVALUATED], ids=["no evaluation", "evaluation"])
def test_a_picture_is_drawn(tmp_path: Path, lines: list[MetricsLine], evaluated: Evaluated) -> None:
    draw_loss(tmp_path / "loss.png", lines, report_of(lines, FACTS, evaluated))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_the_picture_says_what_ran() -> None:
    text = shape_line(report(line(40, ring(2.0, 1.5))))
    for part in ("4 ranks (data 1 x context 4)", "0.84 M parameters", "0:20 min", "200 tokens/s", "efficiency 75%"):
        assert part in text


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(0, 10))
def test_a_smooth_line_stays_within_its_values(values: list[float], half: int) -> None:
    smoothed = smooth(values, half)
    assert len(smoothed) == len(values)
    assert all(min(values) - 1e-9 <= mean <= max(values) + 1e-9 for mean in smoothed)
    assert math.isclose(smoothed[0], values[0], abs_tol=1e-12)


@given(st.lists(st.floats(0, 1), max_size=3))
def test_labels_keep_their_distance_and_their_order(places: list[float]) -> None:
    moved = spread(places, 0.08)
    order = sorted(range(len(places)), key=places.__getitem__)
    gaps = [moved[b] - moved[a] for a, b in itertools.pairwise(order)]
    assert all(gap > 0.0799 for gap in gaps)


def test_the_report_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        report(line(1)).steps = 2  # type: ignore[misc]
