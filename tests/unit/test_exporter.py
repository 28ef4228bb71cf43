"""The agent's counters: sums over ranks and epochs, few series, and no datagram that can do harm."""

import dataclasses
import json
import math
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ring_worker.contract import Degrees, Member, MetricsLine, RingFigures
from ring_worker.telemetry.emitter import Emitter
from ring_worker.telemetry.exporter import POD_SERIES, RING_SERIES, STEP_BUCKETS_SECONDS, Exporter
from ring_worker.telemetry.record import (
    DATAGRAM_BYTES,
    AliveRecord,
    CheckpointRecord,
    PassTimes,
    Probes,
    Record,
    StepRecord,
)

FORWARD = PassTimes(wall=1.0, compute=0.5, comm=0.25, exposed=0.125, skew=0.0625, ideal=0.75, bytes=100, flops=1e9)
BACKWARD = FORWARD + FORWARD


def member(first_rank: int = 0, ranks: int = 2, ring: int = 0) -> Member:
    return Member("pod-0", "node-a", "127.0.0.1", first_rank, ranks, ring, position=0)


def record(rank: int = 0, ring: int = 0, step: int = 1, seconds: float = 0.5) -> StepRecord:
    return StepRecord(rank, ring, rank, step, 64, seconds, 2.5, 1.25, 1e-3, FORWARD, BACKWARD, Probes(4, 1))


def line(step: int, epoch: int = 1, rings: int = 1) -> MetricsLine:
    figures = tuple(RingFigures(i, 2 / 3, 1 / 3, 1 / 7, 1 / 9, 0.0, 1 / 3, 10**12, 10 / 9) for i in range(rings))
    return MetricsLine(step, 100, 2.5, 1e-3, 1.25, 64 * step, 0.5 * step, 128.0, epoch, figures)


def started(degrees: Degrees | None = None, of: Member | None = None) -> Exporter:
    exporter = Exporter("job", "pod-0")
    exporter.epoch_started(of or member(), degrees or Degrees(context=2), epoch=1, restarts=0)
    return exporter


def feed(exporter: Exporter, *records: Record) -> None:
    for one in records:
        exporter.feed(one.to_json().encode())


def value(exporter: Exporter, name: str, **labels: str) -> float:
    """The one sample of this name whose labels include these."""
    found = [s.value for s in samples(exporter) if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]


def samples(exporter: Exporter) -> list:
    return [s for family in text_string_to_metric_families(exporter.render().decode()) for s in family.samples]


@pytest.mark.parametrize(
    "name, labels, expected",
    [
        ("ring_attention_wall_seconds_total", {"phase": "forward"}, 2.0),
        ("ring_attention_wall_seconds_total", {"phase": "backward"}, 4.0),
        ("ring_attention_compute_seconds_total", {"phase": "forward"}, 1.0),
        ("ring_attention_comm_seconds_total", {"phase": "forward"}, 0.5),
        ("ring_attention_exposed_seconds_total", {"phase": "forward"}, 0.25),
        ("ring_attention_skew_seconds_total", {"phase": "backward"}, 0.25),
        ("ring_attention_ideal_seconds_total", {"phase": "forward"}, 1.5),
        ("ring_attention_flops_total", {"phase": "forward"}, 2e9),
        ("ring_attention_bytes_total", {"direction": "sent"}, 600.0),
        ("ring_attention_probed_rows_total", {"ring": "0"}, 8.0),
        ("ring_attention_probe_mismatches_total", {"ring": "0"}, 2.0),
        ("ring_training_tokens_total", {}, 128.0),
        ("ring_training_steps_total", {}, 1.0),
        ("ring_training_step_seconds_sum", {}, 1.0),
        ("ring_training_step_seconds_count", {}, 2.0),
        ("ring_training_step", {}, 7.0),
        ("ring_training_loss", {}, 2.5),
        ("ring_training_grad_norm", {}, 1.25),
        ("ring_training_learning_rate", {}, 1e-3),
        ("ring_training_epoch", {}, 1.0),
        ("ring_training_restarts_total", {}, 0.0),
        ("ring_telemetry_bad_datagrams_total", {}, 0.0),
    ],
)
def test_the_ranks_of_a_pod_add_up(name: str, labels: dict[str, str], expected: float) -> None:
    exporter = started()
    feed(exporter, record(rank=0, step=7), record(rank=1, step=7))
    assert value(exporter, name, job="job", pod="pod-0", **labels) == expected


def test_counters_go_on_over_a_restart_and_steps_begin_anew() -> None:
    exporter = started()
    feed(exporter, *(record(step=step) for step in (1, 2, 3)))
    assert exporter.last_step == 3
    exporter.epoch_started(member(), Degrees(context=2), epoch=2, restarts=1)
    assert (exporter.last_step, exporter.last_progress) == (-1, None)
    feed(exporter, *(record(step=step) for step in (2, 3)))
    assert exporter.last_step == 3
    assert value(exporter, "ring_training_steps_total") == 5
    assert value(exporter, "ring_training_tokens_total") == 5 * 64
    assert value(exporter, "ring_training_restarts_total") == 1


def test_before_the_first_step_counters_stand_at_nought_so_that_rates_see_it() -> None:
    exporter = started()
    assert value(exporter, "ring_training_tokens_total", ring="0") == 0
    assert value(exporter, "ring_attention_wall_seconds_total", ring="0", phase="backward") == 0
    assert not [s for s in samples(exporter) if s.name == "ring_training_loss"]


def test_a_pod_in_several_rings_is_counted_by_the_ring_of_the_record() -> None:
    exporter = started(Degrees(data=2, context=2), member(ranks=4))
    feed(exporter, record(rank=0, ring=0), record(rank=1, ring=0), record(rank=2, ring=1))
    tokens = {s.labels["ring"]: s.value for s in samples(exporter) if s.name == "ring_training_tokens_total"}
    assert tokens == {"0": 128, "1": 64}


def test_a_pod_has_few_series_however_many_ranks_it_has() -> None:
    exporter = started(Degrees(context=8), member(ranks=8))
    feed(exporter, *(record(rank, 0, step) for step in range(1, 50) for rank in range(8)), CheckpointRecord(9, 0.5, 10))
    found = samples(exporter)
    buckets = [s for s in found if s.name.endswith("_bucket")]
    assert len(buckets) == len(STEP_BUCKETS_SECONDS) + 1
    assert len(found) - len(buckets) == RING_SERIES + POD_SERIES
    assert RING_SERIES + POD_SERIES <= 34
    assert not [s for s in found if s.name.endswith("_created")]


def test_buckets_count_the_steps_up_to_their_bound() -> None:
    exporter = started()
    feed(exporter, *(record(step=i, seconds=s) for i, s in enumerate((0.1, 0.11, 3.0, 500.0), start=1)))
    buckets = {s.labels["le"]: s.value for s in samples(exporter) if s.name == "ring_training_step_seconds_bucket"}
    assert buckets == {"0.1": 1, "0.3": 2, "1.0": 2, "3.0": 3, "10.0": 3, "30.0": 3, "100.0": 3, "+Inf": 4}


def test_a_checkpoint_is_shown_by_the_pod_that_completed_it_and_outlives_the_epoch() -> None:
    exporter = started()
    assert exporter.checkpoint_step == -1
    assert not [s for s in samples(exporter) if "checkpoint" in s.name]
    feed(exporter, CheckpointRecord(40, 0.25, 1000))
    exporter.epoch_started(member(), Degrees(context=2))
    assert exporter.checkpoint_step == 40
    shown = {
        s.name.removeprefix("ring_training_checkpoint_"): s.value for s in samples(exporter) if "checkpoint" in s.name
    }
    assert 0 <= shown.pop("age_seconds") < 60
    assert shown == {"step": 40, "stall_seconds": 0.25, "bytes": 1000}


def altered(**changes: object) -> bytes:
    return json.dumps({**dataclasses.asdict(record()), **changes}).encode()


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        record().to_json().encode()[:-1],
        altered(version=2),
        altered(extra=1),
        altered(tokens=-1),
        altered(tokens=1.5),
        altered(seconds=math.inf),
        altered(seconds=math.nan),
        altered(seconds=10**400),
        altered(forward={**dataclasses.asdict(FORWARD), "wall": -1.0}),
        altered(probes={"rows": 4, "mismatches": -1}),
        altered(rank=2),
        altered(rank=-1),
        altered(ring=1),
        b'{"checkpoint_step": -5, "seconds": 1, "bytes": 1, "version": 1}',
        b'{"checkpoint_step": 5}',
    ],
)
def test_a_bad_datagram_is_counted_and_changes_nothing_else(datagram: bytes) -> None:
    exporter = started()
    before = samples(exporter)
    exporter.feed(datagram)
    after = samples(exporter)
    changed = [s.name for s, was in zip(after, before, strict=True) if s != was]
    assert changed == ["ring_telemetry_bad_datagrams_total"]
    assert exporter.last_progress is None


def test_a_sign_of_life_is_progress_without_being_a_step() -> None:
    exporter = started()
    exporter.feed(AliveRecord(0).to_json().encode())
    assert exporter.last_progress is not None
    assert exporter.last_step == -1
    assert value(exporter, "ring_telemetry_bad_datagrams_total") == 0


def test_the_newest_line_of_rank_0_is_kept_for_its_epoch() -> None:
    exporter = started()
    assert exporter.metrics is None
    feed(exporter, line(4), line(5))
    assert exporter.metrics == line(5)
    exporter.epoch_started(member(), Degrees(context=2), epoch=2)
    assert exporter.metrics is None


@pytest.mark.parametrize(
    "of, sent",
    [
        (member(first_rank=2), line(4)),
        (member(), line(4, epoch=2)),
        (member(), dataclasses.replace(line(4), tokens_per_second=-1.0)),
        (member(), dataclasses.replace(line(4), rings=(dataclasses.replace(line(4).rings[0], wall_seconds=-1.0),))),
    ],
    ids=["pod without rank 0", "another epoch", "negative", "negative ring"],
)
def test_a_line_that_cannot_be_is_refused(of: Member, sent: MetricsLine) -> None:
    exporter = started(Degrees(context=4), of)
    feed(exporter, sent)
    assert exporter.metrics is None
    assert value(exporter, "ring_telemetry_bad_datagrams_total") == 1


def test_a_record_before_the_first_epoch_belongs_to_nobody() -> None:
    exporter = Exporter("job", "pod-0")
    feed(exporter, record())
    assert value(exporter, "ring_telemetry_bad_datagrams_total") == 1
    assert exporter.last_step == -1


@given(st.binary(max_size=200))
def test_no_datagram_raises(datagram: bytes) -> None:
    exporter = started()
    exporter.feed(datagram)
    assert value(exporter, "ring_telemetry_bad_datagrams_total") == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), max_size=20))
def test_counters_never_fall(fed: list[tuple[int, int]]) -> None:
    exporter = started()
    last = 0.0
    for rank, step in fed:
        feed(exporter, record(rank=rank, step=step))
        now = value(exporter, "ring_attention_wall_seconds_total", phase="forward")
        assert now == last + 1
        last = now


def test_labels_with_quotes_and_line_breaks_stay_one_label() -> None:
    exporter = Exporter('jo"b\n', "pod\\0")
    assert value(exporter, "ring_telemetry_bad_datagrams_total", job='jo"b\n', pod="pod\\0") == 0


def test_an_emitters_record_arrives_whole() -> None:
    exporter = started()
    receiver, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, end:
        receiver.settimeout(5)
        emitter = Emitter(str(end.fileno()))
        emitter.send(record(step=3))
        exporter.feed(receiver.recv(65536))
        emitter.close()
    assert (exporter.last_step, emitter.dropped) == (3, 0)


@pytest.mark.parametrize("rings, arrived", [(1, 1), (500, 500), (900, 0)])
def test_a_line_arrives_with_its_rings_as_far_as_one_datagram_holds_them(rings: int, arrived: int) -> None:
    exporter = started()
    receiver, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, end:
        receiver.settimeout(5)
        emitter = Emitter(str(end.fileno()))
        emitter.send_line(line(3, rings=rings))
        exporter.feed(receiver.recv(DATAGRAM_BYTES))
        emitter.close()
    assert exporter.metrics == line(3, rings=arrived)
    assert emitter.dropped == 0


def test_an_emitter_without_an_agent_never_raises_and_counts_what_is_lost() -> None:
    receiver, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    emitter = Emitter(str(end.fileno()))
    receiver.close()
    end.close()
    emitter.send(record())
    emitter.send(dataclasses.replace(record(), loss=math.nan))
    assert emitter.dropped == 2
    emitter.close()


def test_an_emitter_never_waits_for_an_agent_that_does_not_read() -> None:
    receiver, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, end:
        emitter = Emitter(str(end.fileno()))
        for step in range(2000):
            emitter.send(record(step=step))
        emitter.close()
    assert emitter.dropped > 0


@pytest.mark.parametrize("descriptor", [None, "", "99999", "a path"])
def test_an_emitter_without_a_socket_takes_records_and_does_nothing(descriptor: str | None) -> None:
    emitter = Emitter(descriptor)
    emitter.send(record())
    assert emitter.dropped == 0
