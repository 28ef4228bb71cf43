"""metrics.jsonl over restarts and kills, and the figures that go into it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.contract import ContractError, MetricsLine, RingFigures
from ring_worker.telemetry.figures import PACKED, pack, ring_figures, unpack
from ring_worker.telemetry.journal import Journal
from ring_worker.telemetry.record import PassTimes, Probes

RING = RingFigures(0, 4.0, 3.0, 1.0, 0.25, 0.125, 2.0, 1000, 1.5)


def line(step: int, epoch: int = 1) -> MetricsLine:
    return MetricsLine(step, 100, 2.5, 1e-3, 1.0, step * 64, step * 0.5, 128.0, epoch, (RING,))


def filled(path: Path, *steps: int) -> Journal:
    journal = Journal(path / "metrics.jsonl")
    for step in steps:
        journal.append(line(step))
    return journal


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert filled(tmp_path, 1, 2, 3).read() == [line(1), line(2), line(3)]


def test_a_journal_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.truncate_after(10)
    assert journal.read() == []


@pytest.mark.parametrize(
    "after, left", [(0, []), (1, [1]), (20, [1, 10, 20]), (25, [1, 10, 20]), (99, [1, 10, 20, 30])]
)
def test_going_on_from_a_checkpoint_drops_the_lines_after_it(tmp_path: Path, after: int, left: list[int]) -> None:
    journal = filled(tmp_path, 1, 10, 20, 30)
    journal.truncate_after(after)
    assert [found.step for found in journal.read()] == left
    journal.append(line(after + 1, epoch=2))
    assert [found.step for found in journal.read()] == [*left, after + 1]


@pytest.mark.parametrize("torn_bytes", [1, 2, 50, 200])
def test_a_torn_last_line_is_left_out_and_then_removed(tmp_path: Path, torn_bytes: int) -> None:
    journal = filled(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-torn_bytes])
    assert journal.read() == [line(1)]
    journal.truncate_after(2)
    journal.append(line(2))
    assert journal.read() == [line(1), line(2)]


@pytest.mark.parametrize("damage", [b"{}\n", b"\n", b"\xff\n", b"\x00\x00\n"])
def test_a_line_damaged_in_the_middle_is_named_and_nothing_is_dropped(tmp_path: Path, damage: bytes) -> None:
    journal = filled(tmp_path, 1)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + damage + path.read_bytes())
    content = path.read_bytes()
    with pytest.raises(ContractError, match=r"metrics\.jsonl:2: "):
        journal.truncate_after(1)
    assert path.read_bytes() == content


NUMBERS = st.floats(0, 1e12)
TIMES = st.builds(PassTimes, *(NUMBERS for _ in range(6)), st.integers(0, 2**53), NUMBERS, st.integers(0, 2**31))


@given(TIMES)
def test_packing_loses_nothing(times: PassTimes) -> None:
    assert len(pack(times)) == PACKED
    assert unpack(pack(times)) == times
    assert type(unpack(pack(times)).bytes) is int


def test_figures_of_a_ring_sum_ranks_and_phases_and_compare_the_slowest_with_the_mean() -> None:
    fast = PassTimes(wall=1.0, compute=0.5, comm=0.5, exposed=0.25, skew=0.125, ideal=0.5, bytes=10)
    slow = PassTimes(wall=3.0, compute=0.5, comm=0.5, exposed=0.25, skew=0.125, ideal=0.5, bytes=10)
    figures = ring_figures(2, [(fast, fast), (slow, slow)], Probes(8, 1))
    assert (figures.probed_rows, figures.probe_mismatches) == (8, 1)
    assert (figures.index, figures.wall_seconds, figures.bytes) == (2, 8.0, 40)
    assert (figures.efficiency, figures.hidden_ratio, figures.exposed_fraction) == (0.25, 0.75, 0.125)
    assert figures.imbalance == 1.5


def test_a_ring_that_did_nothing_has_no_ratios() -> None:
    figures = ring_figures(0, [(PassTimes(), PassTimes())])
    assert (figures.efficiency, figures.hidden_ratio, figures.imbalance) == (None, None, 1.0)
