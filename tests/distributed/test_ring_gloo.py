"""The ring over real gloo processes: exact, measured, and never silent about a peer that is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import oracle
from gloo_ranks import outcomes, ranks
from ring_worker.attention.function import ring_attention
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.ring import Ring
from ring_worker.attention.transport import Arrival, GlooTransport, Message, Transfer

Say = Callable[[Any], None]

MASKS = [CAUSAL, FULL, Mask(window=30), Mask(chunk=32), Mask(documents=(0, 7, 90))]
DELAY_SECONDS = 0.02


def drawn(length: int) -> list[Tensor]:
    make = torch.Generator().manual_seed(length)
    shapes = [(1, 4, length, 16), (1, 2, length, 16), (1, 2, length, 16), (1, 4, length, 16)]
    return [torch.randn(shape, generator=make) for shape in shapes]


def sharded(ring: Ring, tensors: list[Tensor], mask: Mask) -> list[Tensor]:
    """[o, dq, dk, dv] of this rank."""
    place = torch.from_numpy(ring.layout.positions(ring.rank))
    q, k, v, do = (x.index_select(2, place) for x in tensors)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    o = ring_attention(q, k, v, ring, mask)
    return [o.detach(), *torch.autograd.grad(o, (q, k, v), do)]


def compare_with_the_oracle(group: dist.ProcessGroup, say: Say, length: int) -> None:
    transport, tensors = GlooTransport(group), drawn(length)
    worst = 0.0
    for mask in MASKS:
        expected = oracle.attention_and_gradients(*tensors, mask)
        for kind in KINDS:
            layout = Layout(kind, length, transport.size, stripe=8)
            place = torch.from_numpy(layout.positions(transport.rank))
            found = sharded(Ring(layout, transport), tensors, mask)
            errors = [(a - b.index_select(2, place)).abs().max() for a, b in zip(found, expected, strict=True)]
            worst = max(worst, *map(float, errors))
    say(worst)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_gloo_processes_compute_dense_attention_and_its_gradients(tmp_path: Path, world: int) -> None:
    assert max(outcomes(world, tmp_path, compare_with_the_oracle, 131)) < 1e-5


class _Late:
    """A transfer that arrives DELAY_SECONDS after it did."""

    def __init__(self, inner: Transfer) -> None:
        self.inner = inner

    def wait(self) -> Arrival | None:
        arrival = self.inner.wait()
        time.sleep(DELAY_SECONDS)
        return arrival and Arrival(arrival.start, arrival.end + DELAY_SECONDS, arrival.skew)


class _SlowLink(GlooTransport):
    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        return _Late(super().exchange(channel, send, receive))


def measure(group: dist.ProcessGroup, say: Say, transport_kind: type[GlooTransport], busy: bool) -> None:
    """[forward, backward] times of some passes."""
    ring, tensors = Ring(Layout("zigzag", 256, 2), transport_kind(group)), drawn(256)
    if busy:
        ring.kernel = _Busy()
    sharded(ring, tensors, CAUSAL)
    ring.meter.take()
    for _ in range(5):
        dist.barrier()
        sharded(ring, tensors, CAUSAL)
    say(ring.meter.take())


class _Busy:
    """The plain kernel on a machine that is slower."""

    def __new__(cls) -> Any:
        from ring_worker.attention.kernels.reference import ReferenceKernel

        class Busy(ReferenceKernel):
            def forward(self, *arguments: Any) -> None:
                super().forward(*arguments)
                time.sleep(DELAY_SECONDS)

        return Busy()


def test_a_delay_in_the_transfer_is_found_again_as_exposed_time(tmp_path: Path) -> None:
    plain = outcomes(2, tmp_path, measure, GlooTransport, False)
    slow = outcomes(2, tmp_path, measure, _SlowLink, False)
    for (before, _), (after, _) in zip(plain, slow, strict=True):
        injected = 5 * DELAY_SECONDS  # one hop a forward pass
        assert after.exposed - before.exposed == pytest.approx(injected, rel=0.35)
        assert after.comm - before.comm == pytest.approx(injected, rel=0.35)
        assert abs(after.compute - before.compute) < injected / 2


def test_load_on_the_compute_is_compute_and_not_exposed(tmp_path: Path) -> None:
    for forward, _ in outcomes(2, tmp_path, measure, GlooTransport, True):
        assert forward.compute >= 2 * 5 * DELAY_SECONDS
        assert forward.exposed < 5 * DELAY_SECONDS / 2


def count_bytes(group: dist.ProcessGroup, say: Say, length: int) -> None:
    """Bytes sent in forward and backward, for causal, aligned chunks, and a window on contiguous ranks."""
    transport, tensors, sent = GlooTransport(group), drawn(length), []
    for kind, mask in (("zigzag", CAUSAL), ("zigzag", Mask(chunk=length // 8)), ("contiguous", Mask(window=9))):
        ring = Ring(Layout(kind, length, transport.size), transport)
        sharded(ring, tensors, mask)
        forward, backward = ring.meter.take()
        sent.append((forward.bytes, backward.bytes))
    say(sent)


def test_what_the_mask_excludes_is_not_sent(tmp_path: Path) -> None:
    ranks_sent = outcomes(4, tmp_path, count_bytes, 256)
    token = 2 * 2 * 16 * 4  # key and value, 2 heads of 16, fp32
    causal, chunked, window = ([sum(sent[mask][phase] for sent in ranks_sent) for phase in (0, 1)] for mask in range(3))
    assert 0 < causal[0] <= 3 * 256 * token
    assert chunked == [0, 0]
    assert window[0] == 3 * 8 * token  # three borders, eight keys before each
    assert window[1] == 2 * window[0]  # and their gradients back


def wait_for_ever(group: dist.ProcessGroup, say: Say) -> None:
    ring, tensors = Ring(Layout("zigzag", 256, 4), GlooTransport(group)), drawn(256)
    say(os.getpid())
    while True:
        sharded(ring, tensors, CAUSAL)


def test_a_dead_peer_is_an_error_that_names_the_edge(tmp_path: Path) -> None:
    with ranks(4, tmp_path, wait_for_ever) as started:
        pids = [rank.next() for rank in started]
        time.sleep(0.3)
        os.kill(pids[2], signal.SIGKILL)
        began = time.monotonic()
        kind, message = started[3].rest()[-1]
        assert (kind, time.monotonic() - began < 20) == ("TransportError", True)
        assert "rank 2 -> rank 3" in message
