"""Add up what a pod's ranks measured, and show it as Prometheus text.

In: datagrams of the ranks (`record.py`), and the start of each epoch. Out: one page of text for `/metrics`, and what
the agent's `/status` says of progress. One exporter lives as long as the pod's agent, so its counters go on over
restarts of the ranks; ranks that count for themselves would begin at nought with every epoch.

Counters are sums over the pod's ranks of one ring, never ratios: rules divide them over any window. Series therefore
grow with pods and not with ranks: `RING_SERIES` for a ring, `POD_SERIES` for the pod, and the buckets of one
histogram. The families are made afresh at each scrape from plain sums, in a registry of their own: counters of
prometheus_client would add a `_created` series to each.

A datagram is the ranks' word, not the truth: one that cannot be read, is negative, or comes from a rank or ring that
is not this pod's in this epoch, is counted and changes nothing else.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ring_worker.contract import ContractError, Degrees, Member, MetricsLine, RingFigures
from ring_worker.telemetry.record import AliveRecord, CheckpointRecord, PassTimes, Probes, Record, StepRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STEP_BUCKETS_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RING_SERIES = 25  # of one ring, buckets of the histogram left out
POD_SERIES = 8

_RING_LABELS = ("job", "ring", "pod")
_POD_LABELS = ("job", "pod")
_SECONDS = {
    "wall": "Passes round the ring, from start to end",
    "compute": "In the attention kernels",
    "comm": "Transfers in flight, from the later of both posts to the arrival",
    "exposed": "Waiting for a block with nothing to compute",
    "skew": "Waiting for a block that the peer had not sent yet",
    "ideal": "What the unmasked FLOPs take at the calibrated rate of the isolated kernel",
}
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)


@dataclass(slots=True)
class _Ring:
    """Sums over this pod's ranks of one ring, since the agent began; gauges of its newest step."""

    forward: PassTimes = field(default_factory=PassTimes)
    backward: PassTimes = field(default_factory=PassTimes)
    probes: Probes = field(default_factory=Probes)
    tokens: int = 0
    steps: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(STEP_BUCKETS_SECONDS) + 1))
    step_seconds: float = 0.0
    newest: StepRecord | None = None  # of this epoch

    @property
    def newest_step(self) -> int:
        return self.newest.step if self.newest else -1

    def add(self, record: StepRecord) -> None:
        self.forward += record.forward
        self.backward += record.backward
        self.probes += record.probes
        self.tokens += record.tokens
        self.buckets[bisect.bisect_left(STEP_BUCKETS_SECONDS, record.seconds)] += 1
        self.step_seconds += record.seconds
        if record.step > self.newest_step:
            self.steps += 1
            self.newest = record


@dataclass(frozen=True, slots=True)
class _Epoch:
    member: Member
    degrees: Degrees
    number: int | None
    restarts: int | None

    def knows(self, record: StepRecord) -> bool:
        """Whether the record comes from a rank of this pod and names a ring of this job."""
        ranks = range(self.member.first_rank, self.member.first_rank + self.member.ranks)
        return record.rank in ranks and record.ring in range(self.degrees.rings)

    def logs(self, line: MetricsLine) -> bool:
        """Whether the line is of this epoch, and rank 0, which alone writes lines, of this pod."""
        return self.member.first_rank == 0 and self.number in (None, line.epoch)


class Exporter(Collector):
    """The counters of one pod. Every method may be called from any thread."""

    def __init__(self, job: str, pod: str) -> None:
        self._job, self._pod = job, pod
        self._lock = threading.Lock()
        self._rings: dict[int, _Ring] = {}
        self._epoch: _Epoch | None = None
        self._bad_datagrams = 0
        self._last_progress: float | None = None
        self._checkpoint: tuple[CheckpointRecord, float] | None = None
        self._metrics: MetricsLine | None = None  # of this epoch
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def epoch_started(
        self, member: Member, degrees: Degrees, epoch: int | None = None, restarts: int | None = None
    ) -> None:
        """From now on, ranks of `member` report. Call it before they start, when those of the last epoch are gone.

        Steps begin anew (`last_step` -1), counters go on. `epoch` and `restarts` of the rank table are shown if given.
        """
        with self._lock:
            self._epoch = _Epoch(member, degrees, epoch, restarts)
            self._last_progress = None
            self._metrics = None
            self._rings.setdefault(member.ring, _Ring())  # at nought before the first step, so that rates see it
            for ring in self._rings.values():
                ring.newest = None

    def feed(self, datagram: bytes) -> None:
        """Take in one record as JSON. Never raises: a bad one is counted."""
        try:
            record = _read(datagram)
        except _UNREADABLE:
            record = None
        with self._lock:
            if isinstance(record, CheckpointRecord):
                self._checkpoint = (record, time.monotonic())
                self._last_progress = time.monotonic()
            elif isinstance(record, AliveRecord):
                self._last_progress = time.monotonic()
            elif isinstance(record, MetricsLine) and self._epoch is not None and self._epoch.logs(record):
                self._metrics = record
            elif isinstance(record, StepRecord) and self._epoch is not None and self._epoch.knows(record):
                self._rings.setdefault(record.ring, _Ring()).add(record)
                self._last_progress = time.monotonic()
            else:
                self._bad_datagrams += 1

    @property
    def last_step(self) -> int:
        """The newest step that a rank of this pod finished in this epoch; -1: none."""
        with self._lock:
            return max((ring.newest_step for ring in self._rings.values()), default=-1)

    @property
    def last_progress(self) -> float | None:
        """`time.monotonic()` of the last record in this epoch that told of work; None: none."""
        with self._lock:
            return self._last_progress

    @property
    def checkpoint_step(self) -> int:
        """Step of the last checkpoint that a rank of this pod completed, in any epoch; -1: none."""
        with self._lock:
            return self._checkpoint[0].checkpoint_step if self._checkpoint else -1

    @property
    def metrics(self) -> MetricsLine | None:
        """The newest logged step of this epoch; None: none yet, or rank 0 is another pod's."""
        with self._lock:
            return self._metrics

    def render(self) -> bytes:
        """The page for `/metrics`, of type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry need not collect in order to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families of this moment (prometheus_client calls it)."""
        with self._lock:
            rings = [((self._job, str(index), self._pod), ring) for index, ring in sorted(self._rings.items())]
            return [*_attention(rings), *_training(rings), *self._of_pod()]

    def _of_pod(self) -> Iterator[Metric]:
        labels = (self._job, self._pod)
        yield _counter(
            "ring_telemetry_bad_datagrams", "Datagrams refused", _POD_LABELS, [(labels, self._bad_datagrams)]
        )
        if self._epoch:
            yield from _epoch_families(labels, self._epoch)
        if self._checkpoint:
            record, arrival = self._checkpoint
            yield from _checkpoint_families(labels, record, time.monotonic() - arrival)


_Sample = tuple[tuple[str, ...], float]


def _read(datagram: bytes) -> Record:
    """Raises ContractError, or another of `_UNREADABLE`, for whatever is no record with sound numbers."""
    text = datagram.decode()
    if '"checkpoint_step"' in text:
        checkpoint = CheckpointRecord.from_json(text)
        _require_sound(checkpoint.checkpoint_step, checkpoint.seconds, checkpoint.bytes)
        return checkpoint
    if '"alive_rank"' in text:
        return AliveRecord.from_json(text)
    if '"tokens_per_second"' in text:
        return _read_line(text)
    step = StepRecord.from_json(text)
    times = [getattr(passes, name) for passes in (step.forward, step.backward) for name in PassTimes.__slots__]
    _require_sound(step.step, step.tokens, step.seconds, step.probes.rows, step.probes.mismatches, *times)
    return step


def _read_line(text: str) -> MetricsLine:
    line = MetricsLine.from_json(text)
    rings = [getattr(ring, name) for ring in line.rings for name in RingFigures.__slots__]
    _require_sound(line.step, line.total_steps, line.tokens, line.seconds, line.tokens_per_second, *rings)
    _require_sound(abs(line.loss), line.lr, line.grad_norm, line.heldout_bits_per_byte or 0.0)
    return line


def _require_sound(*values: float) -> None:
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ContractError("a negative or infinite number, which no counter can add")


def _counter(name: str, meaning: str, names: tuple[str, ...], samples: Iterable[_Sample]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=names)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _gauge(name: str, meaning: str, names: tuple[str, ...], samples: Iterable[_Sample]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=names)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


_Rings = list[tuple[tuple[str, str, str], _Ring]]


def _attention(rings: _Rings) -> Iterator[Metric]:
    names = (*_RING_LABELS, "phase")
    passes = [
        ((*labels, phase), times)
        for labels, ring in rings
        for phase, times in (("forward", ring.forward), ("backward", ring.backward))
    ]
    for quantity, meaning in _SECONDS.items():
        samples = [(labels, getattr(times, quantity)) for labels, times in passes]
        yield _counter(f"ring_attention_{quantity}_seconds", meaning, names, samples)
    flops = [(labels, times.flops) for labels, times in passes]
    yield _counter("ring_attention_flops", "Unmasked FLOPs of the attention", names, flops)
    sent = [((*labels, "sent"), float(ring.forward.bytes + ring.backward.bytes)) for labels, ring in rings]
    yield _counter("ring_attention_bytes", "Bytes passed on round the ring", (*_RING_LABELS, "direction"), sent)
    rows = [(labels, float(ring.probes.rows)) for labels, ring in rings]
    yield _counter("ring_attention_probed_rows", "Rows that were computed again densely", _RING_LABELS, rows)
    differing = [(labels, float(ring.probes.mismatches)) for labels, ring in rings]
    yield _counter("ring_attention_probe_mismatches", "Probed rows that were not right", _RING_LABELS, differing)


def _training(rings: _Rings) -> Iterator[Metric]:
    tokens = [(labels, float(ring.tokens)) for labels, ring in rings]
    steps = [(labels, float(ring.steps)) for labels, ring in rings]
    yield _counter("ring_training_tokens", "Tokens trained by this pod's ranks", _RING_LABELS, tokens)
    yield _counter("ring_training_steps", "Steps done, those done again after a restart too", _RING_LABELS, steps)
    yield _step_seconds(rings)
    newest = [(labels, ring.newest) for labels, ring in rings if ring.newest is not None]
    for name, meaning, quantity in (
        ("ring_training_step", "The newest finished step", "step"),
        ("ring_training_loss", "Mean nats per valid token of the newest step, over all ranks", "loss"),
        ("ring_training_grad_norm", "Global norm of the gradient in the newest step", "grad_norm"),
        ("ring_training_learning_rate", "Learning rate of the newest step", "lr"),
    ):
        yield _gauge(name, meaning, _RING_LABELS, [(labels, getattr(step, quantity)) for labels, step in newest])


def _step_seconds(rings: _Rings) -> Metric:
    family = HistogramMetricFamily("ring_training_step_seconds", "Wall time of a step, by rank", labels=_RING_LABELS)
    bounds = [*map(str, STEP_BUCKETS_SECONDS), "+Inf"]
    for labels, ring in rings:
        below = [sum(ring.buckets[: i + 1]) for i in range(len(bounds))]
        family.add_metric(labels, list(zip(bounds, below, strict=True)), ring.step_seconds)
    return family


def _epoch_families(labels: tuple[str, str], epoch: _Epoch) -> Iterator[Metric]:
    member, degrees = epoch.member, epoch.degrees
    names = ("job", "ring", "pod", "node", "position", "ranks", "data", "context")
    place = (str(member.ring), labels[1], member.node, str(member.position), str(member.ranks))
    info = (labels[0], *place, str(degrees.data), str(degrees.context))
    yield _gauge("ring_training_pod_info", "Where this pod's first rank stands, and the degrees", names, [(info, 1.0)])
    if epoch.number is not None:
        yield _gauge("ring_training_epoch", "Epoch of the ranks", _POD_LABELS, [(labels, epoch.number)])
    if epoch.restarts is not None:
        yield _counter("ring_training_restarts", "Failures behind this epoch", _POD_LABELS, [(labels, epoch.restarts)])


def _checkpoint_families(labels: tuple[str, str], record: CheckpointRecord, age_seconds: float) -> Iterator[Metric]:
    for name, meaning, value in (
        ("step", "Step of the last complete checkpoint", record.checkpoint_step),
        ("age_seconds", "Time since the last checkpoint was complete", age_seconds),
        ("stall_seconds", "How long training stood still for the last checkpoint", record.seconds),
        ("bytes", "Bytes of the last checkpoint on disk", record.bytes),
    ):
        yield _gauge(f"ring_training_checkpoint_{name}", meaning, _POD_LABELS, [(labels, float(value))])
