"""How a block gets from one rank of the ring to another: post, and later wait.

`exchange` posts a send and a receive and returns at once; the `Transfer` it gives is waited for after the compute
that hides it. After the wait the received buffer may be read and the sent one written. One transfer a channel is in
flight: keys travel on one channel, their gradients on the other. Peers are ring positions. A transfer that fails
names its edge.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.meter import Mark

KEYS, GRADIENTS = 0, 1


class TransportError(RuntimeError):
    """A transfer failed: the message names the edge of the ring."""


@dataclass(frozen=True, slots=True)
class Message:
    """A contiguous tensor to or from the ring position `peer`."""

    tensor: Tensor
    peer: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """When the received block was on its way, from the later of both posts (marks of the transport's clock).

    `skew` in seconds: the part of the wait in which the peer had not even posted, where the transport can tell, else 0.
    """

    start: Mark
    end: Mark
    skew: float = 0.0


class Transfer(Protocol):
    def wait(self) -> Arrival | None:
        """Until both sides are done. None if nothing was received. Raises TransportError."""


class Transport(Protocol):
    rank: int
    size: int

    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        """Post both; either may be None, but not both."""


class GlooTransport:
    """Point-to-point over a gloo group on the CPU. Each transfer carries the time it was sent.

    A thread a channel waits for the transfers, so that an arrival is stamped when it happens, not when somebody asks.
    The clock is CLOCK_MONOTONIC; other hosts have another, so `one_host` False leaves skew out.
    """

    def __init__(self, group: dist.ProcessGroup, one_host: bool = True) -> None:
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._one_host = one_host
        self._watchers = {channel: _Watcher(f"ring-channel-{channel}") for channel in (KEYS, GRADIENTS)}

    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        stamp, now = torch.zeros(1, dtype=torch.float64), time.monotonic()
        transfer = _GlooTransfer(self._edge(send, receive), now, stamp if receive else None, self._one_host)
        if receive:
            source = self._ranks[receive.peer]
            transfer.receives += [
                dist.irecv(stamp, source, self._group, tag=2 * channel),
                dist.irecv(as_bytes(receive.tensor), source, self._group, tag=2 * channel + 1),
            ]
        if send:
            target = self._ranks[send.peer]
            transfer.kept = torch.tensor([now], dtype=torch.float64)
            transfer.sends += [
                dist.isend(transfer.kept, target, self._group, tag=2 * channel),
                dist.isend(as_bytes(send.tensor), target, self._group, tag=2 * channel + 1),
            ]
        self._watchers[channel].watch(transfer)
        return transfer

    def _edge(self, send: Message | None, receive: Message | None) -> str:
        ends = [f"rank {self._ranks[receive.peer]} -> rank {self._ranks[self.rank]}"] if receive else []
        ends += [f"rank {self._ranks[self.rank]} -> rank {self._ranks[send.peer]}"] if send else []
        return " or ".join(ends)


@dataclass(slots=True)
class _GlooTransfer:
    edge: str
    posted: float
    stamp: Tensor | None  # when the peer posted its sending, once it is here
    one_host: bool
    receives: list[Any] = field(default_factory=list)
    sends: list[Any] = field(default_factory=list)
    kept: Tensor | None = None  # our own stamp must live until it is sent
    arrived: float = 0.0
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> None:
        """Called by the watcher."""
        try:
            for work in self.receives:
                work.wait()
            self.arrived = time.monotonic()
            for work in self.sends:
                work.wait()
        except Exception as error:
            self.error = error
        self.done.set()

    def wait(self) -> Arrival | None:
        entered = time.monotonic()
        self.done.wait()
        if self.error:
            raise TransportError(f"ring transfer {self.edge} failed: {self.error}") from self.error
        if self.stamp is None:
            return None
        sent = float(self.stamp) if self.one_host else self.posted
        return Arrival(max(self.posted, sent), self.arrived, skew=max(0.0, sent - entered))


class _Watcher:
    """Finishes the transfers of one channel in their order."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[_GlooTransfer] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def watch(self, transfer: _GlooTransfer) -> None:
        self._queue.put(transfer)

    def _run(self) -> None:
        while True:
            self._queue.get().finish()


class NcclTransport:
    """Point-to-point over NCCL on a stream of its own, so that a transfer runs beside the kernels."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._stream = torch.cuda.Stream()
        dist.all_reduce(torch.zeros(1, device="cuda"), group=group)  # a first exchange must not leave any rank out

    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        messages = [(dist.isend, send), (dist.irecv, receive)]
        self._stream.wait_stream(torch.cuda.current_stream())  # buffers are ready, and no longer read
        with torch.cuda.stream(self._stream):
            start = _event()
            works = dist.batch_isend_irecv(
                [dist.P2POp(op, as_bytes(m.tensor), self._ranks[m.peer], self._group) for op, m in messages if m]
            )
            for work in works:
                work.wait()  # the stream waits, not the host
            return _NcclTransfer(start, _event(), received=receive is not None)


@dataclass(frozen=True, slots=True)
class _NcclTransfer:
    start: torch.cuda.Event
    end: torch.cuda.Event
    received: bool

    def wait(self) -> Arrival | None:
        torch.cuda.current_stream().wait_event(self.end)
        return Arrival(self.start, self.end) if self.received else None


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class Solo:
    """A ring of one, which sends nothing."""

    rank, size = 0, 1

    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        raise AssertionError("a ring of one rank has nobody to exchange with")


class ThreadTransport:
    """N virtual ranks as threads of one process, on one device. `make(n)` gives all of them."""

    def __init__(
        self, rank: int, mailboxes: dict[tuple[int, int, int], queue.SimpleQueue[tuple[float, Tensor]]]
    ) -> None:
        self.rank, self.size = rank, 1 + max(to for _, to, _ in mailboxes)
        self._mailboxes = mailboxes

    @classmethod
    def make(cls, ranks: int) -> Sequence[ThreadTransport]:
        everyone = range(ranks)
        mailboxes: dict[tuple[int, int, int], queue.SimpleQueue[tuple[float, Tensor]]] = {
            (a, b, channel): queue.SimpleQueue() for a in everyone for b in everyone for channel in (KEYS, GRADIENTS)
        }
        return [cls(rank, mailboxes) for rank in everyone]

    def exchange(self, channel: int, send: Message | None, receive: Message | None) -> Transfer:
        if send:
            self._mailboxes[self.rank, send.peer, channel].put((time.monotonic(), send.tensor.clone()))
        box = self._mailboxes[receive.peer, self.rank, channel] if receive else None
        return _ThreadTransfer(time.monotonic(), box, receive)


@dataclass(frozen=True, slots=True)
class _ThreadTransfer:
    posted: float
    box: queue.SimpleQueue[tuple[float, Tensor]] | None
    receive: Message | None

    def wait(self) -> Arrival | None:
        if self.box is None or self.receive is None:
            return None
        entered = time.monotonic()
        try:
            sent, tensor = self.box.get(timeout=60)
        except queue.Empty:
            raise TransportError(
                f"ring transfer from position {self.receive.peer} failed: no sender for 60 s"
            ) from None
        self.receive.tensor.copy_(tensor)
        return Arrival(max(self.posted, sent), time.monotonic(), skew=max(0.0, sent - entered))


def as_bytes(tensor: Tensor) -> Tensor:
    """The same memory as uint8, which every back end carries whatever the dtype."""
    return tensor.flatten().view(torch.uint8)
