"""The ring over real gloo processes: exact, measured, and never silent about a peer that is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import oracle
from gloo_ranks import outcomes, ranks
from ring_worker.attention.function import ring_attention
from ring_worker.attention.keep import keep_output
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Mask
from ring_worker.attention.probe import probe
from ring_worker.attention.ring import Ring, part_sizes
from ring_worker.attention.transport import Arrival, GlooTransport, Message, Transfer

Say = Callable[[Any], None]

MASKS = [CAUSAL, FULL, Mask(window=30), Mask(chunk=32), Mask(documents=(0, 7, 90)), Mask(window=20, global_tokens=5)]
DELAY_SECONDS = 0.02


def drawn(length: int, heads: int = 4, groups: int = 2, value: int = 16) -> list[Tensor]:
    """q, k, v, do."""
    make = torch.Generator().manual_seed(length)
    shapes = [(1, heads, length, 16), (1, groups, length, 16), (1, groups, length, value), (1, heads, length, value)]
    return [torch.randn(shape, generator=make) for shape in shapes]


def places(ring: Ring) -> Tensor:
    """The positions of the tokens that this process holds."""
    whole = torch.from_numpy(ring.layout.positions(ring.rank))
    return whole.split(part_sizes(len(whole), ring.heads.size))[ring.heads.rank]


def sharded(ring: Ring, tensors: list[Tensor], mask: Mask, sinks: Tensor | None = None, **options: Any) -> list[Tensor]:
    """[o, dq, dk, dv] of this rank, and with sinks its part of their gradient."""
    q, k, v, do = (x.index_select(2, places(ring)) for x in tensors)
    inputs = [x.clone().requires_grad_() for x in (q, k, v, *(() if sinks is None else (sinks,)))]
    o = ring_attention(*inputs[:3], ring, mask, sinks=None if sinks is None else inputs[3], **options)
    return [o.detach(), *torch.autograd.grad(o, inputs, do)]


def worst_error(ring: Ring, tensors: list[Tensor], mask: Mask, sinks: Tensor | None = None, **options: Any) -> float:
    """The largest absolute error of all that `sharded` gives; the sinks' gradient summed over all processes."""
    expected = oracle.attention_and_gradients(*tensors, mask, sinks=sinks, **options)
    found = sharded(ring, tensors, mask, sinks, **options)
    errors = [(a - b.index_select(2, places(ring))).abs().max() for a, b in zip(found[:4], expected[:4], strict=True)]
    if sinks is not None:
        dist.all_reduce(found[4])
        errors.append((found[4] - expected[4]).abs().max())
    return max(map(float, errors))


def compare_with_the_oracle(group: dist.ProcessGroup, say: Say, length: int, options: dict[str, Any]) -> None:
    transport, tensors = GlooTransport(group), drawn(length)
    rings = [Ring(Layout(kind, length, transport.size, stripe=8), transport, **options) for kind in KINDS]
    say(max(worst_error(ring, tensors, mask) for mask in MASKS for ring in rings))


@pytest.mark.parametrize(
    "world, options",
    [
        (2, {}),
        (3, {"rotate": "queries"}),
        (4, {}),
        (4, {"inner": 2}),
        (4, {"inner": 2, "rotate": "queries"}),
        (4, {"inner": 1}),
    ],
    ids=str,
)
def test_gloo_processes_compute_dense_attention_and_its_gradients(
    tmp_path: Path, world: int, options: dict[str, Any]
) -> None:
    assert max(outcomes(world, tmp_path, compare_with_the_oracle, 131, options)) < 1e-5


def two_by_two(group: dist.ProcessGroup, length: int, **options: Any) -> Ring:
    """Four processes: rings of two, places of two members. Members are neighbours."""
    rank = dist.get_rank(group)
    rows, columns = ([dist.new_group(ranks) for ranks in pairs] for pairs in ([(0, 1), (2, 3)], [(0, 2), (1, 3)]))
    transport, heads = GlooTransport(columns[rank % 2]), GlooTransport(rows[rank // 2])
    return Ring(Layout("zigzag", length, 2), transport, heads=heads, **options)


def split_heads(group: dist.ProcessGroup, say: Say, heads: int, groups: int) -> None:
    ring, tensors = two_by_two(group, 131), drawn(131, heads, groups)
    sinks = torch.linspace(-1, 1, heads)
    say([worst_error(ring, tensors, mask, sinks) for mask in MASKS])


@pytest.mark.parametrize("heads, groups", [(4, 4), (4, 2), (6, 2), (4, 1), (2, 1)])
def test_members_of_a_place_divide_its_heads(tmp_path: Path, heads: int, groups: int) -> None:
    """Ulysses in a ring; in the last two, more members than key heads."""
    assert max(map(max, outcomes(4, tmp_path, split_heads, heads, groups))) < 1e-5


def soften(group: dist.ProcessGroup, say: Say) -> None:
    transport, tensors = GlooTransport(group), drawn(131, value=8)
    sinks = torch.tensor([-1.0, 0.0, 2.0, 0.5])
    rings = [Ring(Layout("zigzag", 131, 4), transport, rotate=rotate) for rotate in ("keys", "queries")]
    say(max(worst_error(ring, tensors, mask, sinks, softcap=1.5) for mask in MASKS for ring in rings))


def test_soft_cap_sinks_and_values_of_another_size(tmp_path: Path) -> None:
    assert max(outcomes(4, tmp_path, soften)) < 2e-5


def keep(group: dist.ProcessGroup, say: Say, which: str) -> None:
    """(do the gradients agree, FLOPs and bytes of the forward passes as a share of those without checkpointing)"""
    ring, tensors = Ring(Layout("zigzag", 256, 4), GlooTransport(group)), drawn(256)
    plain = sharded(ring, tensors, CAUSAL)
    once, _ = ring.meter.take()
    q, k, v, do = (x.index_select(2, places(ring)) for x in tensors)
    inputs = [x.requires_grad_() for x in (q, k, v)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ring_attention(q, k, v, ring, CAUSAL)

    o = checkpoint(attend, *inputs, use_reentrant=False, context_fn=keep_output(which))
    found = [o.detach(), *torch.autograd.grad(o, inputs, do)]
    forward, _ = ring.meter.take()
    close = all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(found, plain, strict=True))
    say((close, forward.flops, once.flops, forward.bytes, once.bytes))


@pytest.mark.parametrize("which, again", [("all", 0.0), ("late", 0.25)])
def test_a_kept_output_runs_no_ring_and_half_of_it_a_quarter(tmp_path: Path, which: str, again: float) -> None:
    said = outcomes(4, tmp_path, keep, which)
    assert all(close for close, *_ in said)
    flops, once, sent, sent_once = (sum(numbers) for numbers in list(zip(*said, strict=True))[1:])
    assert flops / once == pytest.approx(1 + again, abs=0.01)
    assert sent == sent_once if which == "all" else sent_once < sent < 2 * sent_once


def sample(group: dist.ProcessGroup, say: Say, split: bool) -> None:
    """What the probe says of a right output, and of one that is off in a single row."""
    ring = two_by_two(group, 131) if split else Ring(Layout("zigzag", 131, 4), GlooTransport(group))
    (q, k, v, _), mask = [x.index_select(2, places(ring)) for x in drawn(131)], Mask(window=40, global_tokens=3)
    o = ring_attention(q, k, v, ring, mask)
    right = probe(q, k, v, o, ring, mask, rows=131)
    if dist.get_rank(group) == 0:
        o[:, :, 3] *= 1.01
    wrong = probe(q, k, v, o, ring, mask, rows=131)
    say((right.rows, right.mismatches, wrong.mismatches))


@pytest.mark.parametrize("split", [False, True])
def test_the_probe_finds_a_wrong_row(tmp_path: Path, split: bool) -> None:
    """With split heads every member compares its own heads of all rows of its place."""
    said = outcomes(4, tmp_path, sample, split)
    assert [sum(numbers) for numbers in zip(*said, strict=True)] == ([262, 0, 2] if split else [131, 0, 1])


class _Late:
    """A transfer that arrives DELAY_SECONDS after it did."""

    def __init__(self, inner: Transfer) -> None:
        self.inner = inner

    def wait(self) -> Arrival | None:
        arrival = self.inner.wait()
        time.sleep(DELAY_SECONDS)
        return arrival and Arrival(arrival.start, arrival.end + DELAY_SECONDS, arrival.skew)


class _SlowLink(GlooTransport):
    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        return _Late(super().exchange(channel, sends, receives))


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
        assert min(after.exposed, after.comm, after.wall - after.compute) >= injected
        assert max(before.exposed, before.comm, after.compute) < injected


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
    assert causal[0] == 3 * 256 * token * 3 // 4  # of a plain ring's
    assert causal[1] == 2 * causal[0]  # and their gradients back
    assert chunked == [0, 0]
    assert window[0] == 3 * 8 * token  # three borders, eight keys before each
    assert window[1] == 2 * window[0]


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
