"""The transports between GPUs, over faked streams: what they ask of CUDA, in which order. No GPU has run them yet."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _symmetric_memory

from fake_cuda import FakeCuda, FakeGroup, FakeNode, rendezvous
from ring_worker.attention.transport import (
    GRADIENTS,
    HEADS,
    KEYS,
    OUTER_GRADIENTS,
    OUTER_KEYS,
    Message,
    NcclTransport,
    SymmetricTransport,
    TransportError,
)

GLOBAL_RANKS = [4, 5, 6, 7]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


class FakeWork:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def wait(self) -> None:
        self.cuda.log.append((self.cuda.current.name, "waits for", "batch"))


@pytest.fixture
def nccl(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> NcclTransport:
    """Position 1 of a ring of global ranks 4 to 7."""

    def run(batch: list[tuple[Any, ...]]) -> list[FakeWork]:
        cuda.log.append((cuda.current.name, "runs", batch))
        return [FakeWork(cuda)]

    monkeypatch.setattr(dist, "get_process_group_ranks", lambda group: GLOBAL_RANKS)
    monkeypatch.setattr(dist, "get_rank", lambda group: 1)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group: None)
    monkeypatch.setattr(dist, "P2POp", lambda op, tensor, peer, group: (op.__name__, tensor.data_ptr(), peer))
    monkeypatch.setattr(dist, "batch_isend_irecv", run)
    return NcclTransport(object())  # type: ignore[arg-type]


def test_nccl_runs_an_exchange_as_one_batch_between_two_marks_of_its_stream(
    nccl: NcclTransport, cuda: FakeCuda
) -> None:
    a, b, c, d = (torch.zeros(4, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.uint8, torch.float64))
    transfer = nccl.exchange(KEYS, [Message(a, 2), Message(b, 3)], [Message(c, 0), Message(d, 0)])
    arrival = transfer.wait()
    assert arrival is not None
    batch = [("isend", a, 6), ("isend", b, 7), ("irecv", c, 4), ("irecv", d, 4)]
    assert [entry for entry in cuda.log if entry[0] != "record"] == [
        ("side", "waits for", "compute"),
        ("side", "marks", arrival.start),
        ("side", "runs", [(name, x.data_ptr(), peer) for name, x, peer in batch]),
        ("side", "waits for", "batch"),
        ("side", "marks", arrival.end),
        ("compute", "waits for", arrival.end),
    ]
    assert {entry[1:] for entry in cuda.log if entry[0] == "record"} == {(x.data_ptr(), "side") for x in (a, b, c, d)}


def test_nccl_carries_what_crosses_inner_rings_in_a_lane_of_its_own(
    nccl: NcclTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one lane it would run before the next step's keys, which it takes a whole inner round to hide."""
    groups: list[object] = []
    monkeypatch.setattr(dist, "P2POp", lambda op, tensor, peer, group: groups.append(group))
    monkeypatch.setattr(dist, "batch_isend_irecv", lambda batch: [])
    inner, outer = object(), object()
    nccl = NcclTransport(inner, outer)  # type: ignore[arg-type]
    for channel in (KEYS, OUTER_KEYS, GRADIENTS, OUTER_GRADIENTS, HEADS):
        nccl.exchange(channel, [Message(torch.zeros(4), 2)], [])
    assert groups == [inner, outer, inner, outer, inner]


def test_nccl_gives_no_arrival_to_who_only_sends(nccl: NcclTransport) -> None:
    assert nccl.exchange(GRADIENTS, [Message(torch.zeros(4), 2)], []).wait() is None


def test_nccl_names_the_edges_of_what_cannot_be_posted_and_stays_failed(
    nccl: NcclTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(batch: object) -> None:
        raise dist.DistBackendError("NCCL communicator was aborted")

    with monkeypatch.context() as patch:
        patch.setattr(dist, "batch_isend_irecv", fail)
        with pytest.raises(TransportError, match=r"rank 4 -> rank 5 or rank 5 -> rank 6 \(keys\).*aborted"):
            nccl.exchange(KEYS, [Message(torch.zeros(4), 2)], [Message(torch.zeros(4), 0)])
    with pytest.raises(TransportError, match="rank 4 -> rank 5"):
        nccl.exchange(GRADIENTS, [Message(torch.zeros(4), 2)], [])


def test_symmetric_memory_without_gpus_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"symmetric transport: needs GPUs of one node.*gloo"):
        SymmetricTransport(object(), 1024)  # type: ignore[arg-type]


@pytest.fixture
def symmetric(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda group: group.rank)
    monkeypatch.setattr(dist, "get_world_size", lambda group: group.node.size)
    monkeypatch.setattr(_symmetric_memory, "empty", lambda shape, dtype, device: torch.full(shape, 255, dtype=dtype))
    monkeypatch.setattr(_symmetric_memory, "rendezvous", rendezvous)


Edge = tuple[int, int, list[int]]  # from, to, numbers of each message


def drawn(world: int, seed: int) -> list[tuple[int, list[Edge]]]:
    """Exchanges as (channel, edges): to the neighbour, to one other, to both or to none, and not all ranks in each."""
    make = random.Random(seed)
    exchanges = []
    for _ in range(40):
        edges: list[Edge] = []
        for rank in range(world):
            others = [peer for peer in range(world) if peer not in (rank, (rank + 1) % world)]
            peers = [(rank + 1) % world] + ([make.choice(others)] if others else [])
            sizes = [[make.randrange(60) for _ in range(make.randrange(1, 4))] for _ in peers]
            edges += [(rank, p, s) for p, s in zip(peers, sizes, strict=True) if make.random() < 0.6]
        exchanges.append((make.choice((KEYS, GRADIENTS)), edges))
    return exchanges


def tensors(turn: int, edge: Edge) -> list[Tensor]:
    return [torch.full((n,), 1000.0 * turn + 10 * edge[0] + edge[1] + i / 10) for i, n in enumerate(edge[2])]


def carry(group: FakeGroup, exchanges: list[tuple[int, list[Edge]]]) -> int:
    """How many exchanges brought this rank what it was sent, each rank at a pace of its own."""
    transport, right, pace = SymmetricTransport(group, 3 * 256), 0, random.Random(group.rank)  # type: ignore[arg-type]
    for turn, (channel, edges) in enumerate(exchanges):
        sends = [Message(x, e[1]) for e in edges if e[0] == group.rank for x in tensors(turn, e)]
        expected = [Message(x, e[0]) for e in edges if e[1] == group.rank for x in tensors(turn, e)]
        receives = [Message(torch.full_like(message.tensor, -1), message.peer) for message in expected]
        time.sleep(pace.choice((0, 0, 0.003)))
        if sends or receives:
            assert (transport.exchange(channel, sends, receives).wait() is not None) == bool(receives)
        right += all(torch.equal(a.tensor, b.tensor) for a, b in zip(receives, expected, strict=True))
    return right


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_pulls_bring_every_message_whoever_is_late(symmetric: None, world: int, seed: int) -> None:
    node, exchanges = FakeNode(world), drawn(world, seed)
    with ThreadPoolExecutor(world) as pool:
        works = [pool.submit(carry, FakeGroup(node, rank), exchanges) for rank in range(world)]
        assert [work.result() for work in works] == [len(exchanges)] * world


def one_of(world: int) -> SymmetricTransport:
    """Position 0 of a node whose other ranks have met it and say nothing."""
    staging = {rank: torch.zeros(2 * 2 * 2 * 1024, dtype=torch.uint8) for rank in range(1, world)}
    return SymmetricTransport(FakeGroup(FakeNode(world, staging), 0), 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "channel, peers, size, words",
    [
        (KEYS, [1], 1025, r"keys: 1152 bytes for position 1, but .* holds 1024\. .* capacity_bytes=1152"),
        (KEYS, [1, 1], 600, "keys: 1280 bytes for position 1"),
        (GRADIENTS, [1, 2, 3], 8, r"gradients: sends to \[2, 3\] beside the neighbour, but has room for one"),
        (HEADS, [1], 8, "heads: has no staging memory"),
    ],
)
def test_what_staging_memory_cannot_carry_is_refused(
    symmetric: None, channel: int, peers: list[int], size: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        one_of(4).exchange(channel, [Message(torch.zeros(size, dtype=torch.uint8), peer) for peer in peers], [])


def test_a_sender_may_be_two_exchanges_ahead_of_its_receivers_and_fill_its_memory(symmetric: None) -> None:
    transport, message = one_of(4), torch.zeros(512, dtype=torch.uint8)
    for _ in range(2):
        assert transport.exchange(KEYS, [Message(message, peer) for peer in (1, 1, 3, 3)], []).wait() is None
