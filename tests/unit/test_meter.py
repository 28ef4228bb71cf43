"""The meter: spans are summed once the clock has them, an evaluation is not in them, and rates are of whole samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import torch

from ring_worker.attention.calibrate import calibrate
from ring_worker.attention.layout import Layout
from ring_worker.attention.meter import BACKWARD, FORWARD, Calibration, Meter
from ring_worker.attention.ring import Ring


@dataclass
class Ticking:
    """A clock of whole seconds, which knows the spans up to `reached` alone, as a device does."""

    reached: float = float("inf")
    ticks: Iterator[int] = field(default_factory=count)

    def mark(self) -> int:
        return next(self.ticks)

    def seconds(self, start: int, end: int) -> float | None:
        return float(end - start) if end <= self.reached else None


def test_spans_are_summed_by_phase_and_kind() -> None:
    meter = Meter(Ticking(), Calibration({FORWARD: 10.0, BACKWARD: 5.0}, empty_wait_seconds=0.25))
    with meter.span(FORWARD, "wall"), meter.span(FORWARD, "compute"):
        meter.count(FORWARD, flops=20, sent_bytes=7, passes=1)
    with meter.span(BACKWARD, "exposed"):
        meter.count(BACKWARD, flops=20)
    forward, backward = meter.take()
    assert (forward.wall, forward.compute, forward.ideal, forward.bytes, forward.passes) == (3, 1, 2, 7, 1)
    assert (backward.exposed, backward.ideal) == (0.75, 4)
    assert meter.take()[0].wall == 0


def test_what_the_device_has_not_reached_is_told_later() -> None:
    clock = Ticking(reached=1)
    meter = Meter(clock)
    for _ in range(2):
        with meter.span(FORWARD, "wall"):
            pass
    assert meter.take()[0].wall == 1
    clock.reached = 9
    assert meter.take()[0].wall == 1


def test_an_evaluation_is_not_measured() -> None:
    meter = Meter(Ticking())
    with meter.pause(), meter.span(FORWARD, "wall"):
        meter.count(FORWARD, flops=1, passes=1)
    assert meter.take()[0] == Meter().take()[0]


def test_a_calibration_gives_a_rate_for_each_phase() -> None:
    ring = Ring(Layout("zigzag", 64, 1))
    found = calibrate(ring, torch.zeros(1, 4, 64, 16), torch.zeros(1, 2, 64, 16), None)
    assert set(found.rates) == {FORWARD, BACKWARD}
    assert all(0 < rate < float("inf") for rate in found.rates.values())
    assert found.empty_wait_seconds >= 0
