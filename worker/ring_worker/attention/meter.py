"""Where the time of a pass round the ring goes.

Everything is a span between two marks of one clock, summed when it is asked for: the host's monotonic clock where the
kernels run on the host, events on the device's streams where they do not, so that measuring never synchronises.
`exposed` is the wait for a block less what an empty wait costs; `ideal` is the unmasked FLOPs at the rate that the
isolated kernel reached when it was calibrated. Definitions: `PassTimes`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from ring_worker.telemetry.record import PassTimes

Mark = Any  # a clock's own: seconds of the host, or a CUDA event

FORWARD, BACKWARD = "forward", "backward"
PHASES = (FORWARD, BACKWARD)
PRODUCTS = {FORWARD: 2, BACKWARD: 5}  # matrix products a (query, key) pair, of 2 * head size FLOPs each


class Clock(Protocol):
    def mark(self) -> Mark:
        """Now, in the order of the work on the compute stream."""

    def seconds(self, start: Mark, end: Mark) -> float | None:
        """Between two marks; None while the later one has not been reached."""


class HostClock:
    """CLOCK_MONOTONIC: one clock for all processes of a host."""

    def mark(self) -> float:
        return time.monotonic()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Events on the current stream, read when the device has passed them."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float | None:
        return start.elapsed_time(end) / 1e3 if end.query() else None


@dataclass(frozen=True, slots=True)
class Calibration:
    """FLOP/s of the isolated kernel by phase, and what a wait costs that waits for nothing, in seconds."""

    rates: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, float("inf")))
    empty_wait_seconds: float = 0.0


@dataclass(slots=True)
class Meter:
    """Collects the spans of the passes since the last `take`."""

    clock: Clock = field(default_factory=HostClock)
    calibration: Calibration = field(default_factory=Calibration)
    paused: bool = False  # while set, nothing is collected
    _spans: list[tuple[str, str, Mark, Mark]] = field(default_factory=list)
    _sums: dict[str, PassTimes] = field(default_factory=lambda: {phase: PassTimes() for phase in PHASES})

    @contextmanager
    def span(self, phase: str, kind: str) -> Iterator[None]:
        """Measure the body as `kind`: wall, compute or exposed."""
        start = self.clock.mark()
        yield
        self.note(phase, kind, start, self.clock.mark())

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What the body does is not measured: an evaluation, beside training."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def note(self, phase: str, kind: str, start: Mark, end: Mark) -> None:
        if not self.paused:
            self._spans.append((phase, kind, start, end))

    def count(self, phase: str, *, sent_bytes: int = 0, flops: float = 0.0, skew: float = 0.0, passes: int = 0) -> None:
        if self.paused:
            return
        ideal = flops / self.calibration.rates[phase]
        self._sums[phase] += PassTimes(bytes=sent_bytes, flops=flops, skew=skew, passes=passes, ideal=ideal)

    def take(self) -> tuple[PassTimes, PassTimes]:
        """(forward, backward) since the last call. Spans that the device has not reached stay for the next one."""
        waiting = []
        for span in self._spans:
            phase, kind, start, end = span
            seconds = self.clock.seconds(start, end)
            if seconds is None:
                waiting.append(span)
                continue
            if kind == "exposed":
                seconds = max(0.0, seconds - self.calibration.empty_wait_seconds)
            sums = self._sums[phase]
            self._sums[phase] = replace(sums, **{kind: getattr(sums, kind) + seconds})
        taken = self._sums[FORWARD], self._sums[BACKWARD]
        self._spans, self._sums = waiting, {phase: PassTimes() for phase in PHASES}
        return taken
