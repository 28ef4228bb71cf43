"""The gloo transport over real processes: lists of messages arrive whole, and no peer is waited for for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gloo_ranks import outcomes, ranks
from ring_worker.attention.transport import (
    CHANNELS,
    GRADIENTS,
    HEADS,
    KEYS,
    OUTER_KEYS,
    GlooTransport,
    Message,
    TransportError,
)
from ring_worker.attention.transport.gloo import CLOSED_BY_TIMEOUT, PACKED_BYTES, _Failure

Say = Callable[[Any], None]

TIMEOUT_SECONDS = 3.0
MOMENT_SECONDS = 0.3
END_SECONDS = 20  # a process that hangs takes longer
DTYPES = (torch.bfloat16, torch.uint8, torch.float32, torch.float64)
COUNTS = (1, 0, 7, 4096, PACKED_BYTES // 4, PACKED_BYTES // 4 + 1, 500_001)  # numbers of a message, round both borders


def drawn(source: int, target: int, turn: int) -> list[Tensor]:
    """The messages of one edge in one exchange, different in all of them, sizes and dtypes mixed."""
    make = torch.Generator().manual_seed(10_000 * turn + 100 * source + target)
    order = torch.randperm(len(COUNTS), generator=make).tolist()
    dtypes = [DTYPES[(index + turn) % len(DTYPES)] for index in order]
    return [
        torch.randint(0, 251, (COUNTS[index],), generator=make).to(dtype)
        for index, dtype in zip(order, dtypes, strict=True)
    ]


def interleaved(lists: dict[int, list[Tensor]]) -> list[Message]:
    """The first tensor of each peer, then the second of each."""
    return [Message(tensors[i], peer) for i in range(len(COUNTS)) for peer, tensors in lists.items()]


def to_everybody(group: dist.ProcessGroup, say: Say, turns: int) -> None:
    """How many messages arrived as they were sent, all channels in flight at once."""
    transport, right = GlooTransport(group), 0
    own, others = transport.rank, [peer for peer in range(transport.size) if peer != transport.rank]
    for turn in range(turns):
        flying = []
        for channel in range(len(CHANNELS)):
            at = len(CHANNELS) * turn + channel
            sends = interleaved({peer: drawn(own, peer, at) for peer in reversed(others)})
            expected = interleaved({peer: drawn(peer, own, at) for peer in others})
            receives = [Message(torch.full_like(message.tensor, 255), message.peer) for message in expected]
            flying.append((transport.exchange(channel, sends, receives), receives, expected))
        for transfer, receives, expected in reversed(flying):
            transfer.wait()
            right += sum(torch.equal(a.tensor, b.tensor) for a, b in zip(receives, expected, strict=True))
    say(right)


@pytest.mark.parametrize("world", [2, 4])
def test_every_message_arrives_in_its_own_tensor(tmp_path: Path, world: int) -> None:
    expected = 3 * len(CHANNELS) * (world - 1) * len(COUNTS)
    assert outcomes(world, tmp_path, to_everybody, 3) == [expected] * world


def nothing(group: dist.ProcessGroup, say: Say) -> None:
    say(GlooTransport(group).size)


def test_a_transport_that_carries_nothing_needs_no_end(tmp_path: Path) -> None:
    assert outcomes(2, tmp_path, nothing) == [2, 2]


def late(group: dist.ProcessGroup, say: Say, one_host: bool) -> None:
    """Rank 2 posts late, and rank 0 receives from both others: (before, after) of each rank's post, and its arrival."""
    transport, tensor = GlooTransport(group, one_host), torch.zeros(5)
    dist.barrier()
    if transport.rank == 2:
        time.sleep(MOMENT_SECONDS)
    others = [1, 2] if transport.rank == 0 else [0]
    before = time.monotonic()
    transfer = transport.exchange(
        KEYS, [Message(tensor, p) for p in others], [Message(tensor.clone(), p) for p in others]
    )
    say((before, time.monotonic(), transfer.wait()))


def test_an_arrival_counts_from_the_last_post_and_skew_is_the_wait_before_it(tmp_path: Path) -> None:
    said = outcomes(3, tmp_path, late, True)
    for own, peers in ((0, [1, 2]), (1, [0]), (2, [0])):
        own_after, arrival = said[own][1:]
        assert max(said[rank][0] for rank in (own, *peers)) <= arrival.start <= arrival.end
        assert arrival.start <= max(said[rank][1] for rank in (own, *peers))
        assert 0 <= arrival.skew <= max(0, *(said[peer][1] - own_after for peer in peers))
    assert said[0][2].skew > 0


def test_clocks_of_other_hosts_are_not_compared(tmp_path: Path) -> None:
    for before, after, arrival in outcomes(3, tmp_path, late, False):
        assert before <= arrival.start <= after
        assert arrival.skew == 0


def told(act: Callable[[], Any]) -> str:
    """What the TransportError says that `act` raises."""
    try:
        act()
    except TransportError as error:
        return str(error)
    return "nothing"


def of_a_subgroup(group: dist.ProcessGroup, say: Say) -> None:
    """Ranks 1 and 2 are positions 0 and 1 of a ring, whose group waits for minutes: what each receives, and is told."""
    ring = dist.new_group([1, 2])
    if dist.get_rank() == 0:
        return say(None)
    transport, hasty = GlooTransport(ring), GlooTransport(ring, timeout_seconds=TIMEOUT_SECONDS)
    tensor, other, received = torch.full((3,), float(transport.rank)), 1 - transport.rank, torch.zeros(3)
    transport.exchange(KEYS, [Message(tensor, other)], [Message(received, other)]).wait()
    say((received.tolist(), told(hasty.exchange(KEYS, [], [Message(tensor, other)]).wait)))
    return None


def test_peers_are_positions_and_edges_are_ranks(tmp_path: Path) -> None:
    _, (first, first_told), (second, second_told) = outcomes(3, tmp_path, of_a_subgroup)
    assert (first, second) == ([1] * 3, [0] * 3)
    assert "rank 2 -> rank 1 (keys)" in first_told
    assert "rank 1 -> rank 2 (keys)" in second_told


def in_inference_mode(group: dist.ProcessGroup, say: Say) -> None:
    transport = GlooTransport(group)
    with torch.inference_mode():
        sent = torch.full((3,), float(transport.rank), dtype=torch.bfloat16)
        received = torch.zeros_like(sent)
        transport.exchange(KEYS, [Message(sent, 1 - transport.rank)], [Message(received, 1 - transport.rank)]).wait()
    say(received.tolist())


def test_tensors_made_in_inference_mode_are_filled_too(tmp_path: Path) -> None:
    assert outcomes(2, tmp_path, in_inference_mode) == [[1] * 3, [0] * 3]


def only_send(group: dist.ProcessGroup, say: Say) -> None:
    """What the waits of a sender and a receiver give."""
    transport, tensor = GlooTransport(group), torch.full((3,), float(dist.get_rank()))
    message = [Message(tensor, 1 - transport.rank)]
    transfer = transport.exchange(HEADS, *((message, []) if transport.rank == 0 else ([], message)))
    say((transfer.wait() is None, tensor.tolist()))


def test_who_only_sends_has_no_arrival(tmp_path: Path) -> None:
    assert outcomes(2, tmp_path, only_send) == [(True, [0, 0, 0]), (False, [0, 0, 0])]


def large_to_or_from(peer: int, sending: bool) -> tuple[list[Message], list[Message]]:
    message = [Message(torch.zeros(64 * 2**20, dtype=torch.uint8), peer)]  # more than sockets hold
    return (message, []) if sending else ([], message)


def lose(rank: int, end: signal.Signals) -> None:
    """Rank 1 ends or freezes, rank 2 lives and says nothing, rank 0 goes on."""
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), end)
    time.sleep(MOMENT_SECONDS if rank == 0 else 3600)


def beside_the_frozen(group: dist.ProcessGroup, say: Say, sending: bool) -> None:
    """What rank 0 is told of a transfer with rank 1, of one with rank 2 that is under way, and of a later one."""
    transport = GlooTransport(group, timeout_seconds=TIMEOUT_SECONDS)
    lose(transport.rank, signal.SIGSTOP)
    lost = transport.exchange(KEYS, *large_to_or_from(1, sending))
    time.sleep(MOMENT_SECONDS)
    beside = transport.exchange(GRADIENTS, [], [Message(torch.zeros(9), 2)])
    later = large_to_or_from(2, not sending)
    say([told(beside.wait), told(lost.wait), told(lambda: transport.exchange(OUTER_KEYS, *later))])


@pytest.mark.parametrize("sending, edge", [(False, "rank 1 -> rank 0 (keys)"), (True, "rank 0 -> rank 1 (keys)")])
def test_a_frozen_peer_is_an_error_that_names_the_edge_everywhere_and_the_process_ends(
    tmp_path: Path, sending: bool, edge: str
) -> None:
    with ranks(3, tmp_path, beside_the_frozen, sending) as started:
        said = started[0].rest()[-1]
        assert len(set(said)) == 1
        assert edge in said[0]
        assert f"within {TIMEOUT_SECONDS:g} s" in said[0]
        started[0].process.join(END_SECONDS)
        assert started[0].process.exitcode == 0


def test_what_another_time_out_ended_does_not_count_as_expired_though_its_own_time_is_up() -> None:
    failure = _Failure(TIMEOUT_SECONDS)
    ended = threading.Thread(target=failure.add, args=("the one that was ended", RuntimeError(CLOSED_BY_TIMEOUT), True))
    ended.start()
    failure.add("the first", RuntimeError("Timed out"), expired=True)
    ended.join()
    assert "the first" in told(failure.check)


def beside_the_dead(group: dist.ProcessGroup, say: Say, sending: bool) -> None:
    """What rank 0 is told of a transfer with rank 1 and of a later one. One with rank 2 is under way to the end."""
    transport = GlooTransport(group)
    lose(transport.rank, signal.SIGKILL)
    transport.exchange(GRADIENTS, [], [Message(torch.zeros(9), 2)])
    tries = [large_to_or_from(1, sending), large_to_or_from(2, sending)]
    say([told(lambda: transport.exchange(KEYS, *messages).wait()) for messages in tries])  # noqa: B023


@pytest.mark.parametrize("sending, edge", [(False, "rank 1 -> rank 0 (keys)"), (True, "rank 0 -> rank 1 (keys)")])
def test_a_dead_peer_is_an_error_at_once_and_the_process_ends_though_others_are_waited_for(
    tmp_path: Path, sending: bool, edge: str
) -> None:
    with ranks(3, tmp_path, beside_the_dead, sending) as started:
        first, later = started[0].rest()[-1]
        assert edge in first
        assert later == first
        started[0].process.join(END_SECONDS)
        assert started[0].process.exitcode == 0


def round_and_round(group: dist.ProcessGroup, say: Say, size: int) -> None:
    """Exchanges in the ring until an error."""
    transport = GlooTransport(group, timeout_seconds=TIMEOUT_SECONDS)
    after, before = (transport.rank + 1) % transport.size, (transport.rank - 1) % transport.size
    say(os.getpid())
    while True:
        transport.exchange(KEYS, [Message(torch.zeros(size), after)], [Message(torch.zeros(size), before)]).wait()


@pytest.mark.parametrize("size", [10, 4_000_000])
@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_no_rank_of_a_ring_waits_for_ever_when_one_is_lost(tmp_path: Path, end: signal.Signals, size: int) -> None:
    with ranks(4, tmp_path, round_and_round, size) as started:
        pids = [rank.next() for rank in started]
        time.sleep(MOMENT_SECONDS)
        os.kill(pids[2], end)
        for rank in (started[3], started[0], started[1]):
            kind, message = rank.rest()[-1]
            assert kind == "TransportError"
            assert rank is not started[3] or "rank 2 -> rank 3" in message
            rank.process.join(END_SECONDS)
            assert rank.process.exitcode == 0
