"""Point-to-point over a gloo group, on CPUs.

In: messages in host memory. Out: the same, with arrivals on CLOCK_MONOTONIC. What goes to one peer in one exchange is a
*parcel*: a head with the time it was sent and all small messages, and the large ones as they lie. An operation of gloo
takes some 75 us whatever its size, and packing copies everything twice (docs/transports.md has the measurement): so
small messages are packed and large ones are not. Gloo delivers operations of one tag between two ranks in the order in
which both posted them, so a channel is a tag.

A thread a channel waits for the transfers, so that an arrival is stamped when it happens, not when somebody asks.

Every wait has a time-out of its own, and the one of the group plays no part. When one runs out, gloo closes all
connections of this rank's group: every other operation under way ends with an error, here and on the peers. That frees
threads and sockets, so a process can end although a peer of it is frozen; and it is why a transport that has failed
stays failed, and names the edge that failed first to whoever still waits for another.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.transport.interface import CHANNELS, Arrival, Message, Transfer, TransportError, as_bytes

TIMEOUT_SECONDS = 600.0
PACKED_BYTES = 32 * 1024  # messages up to this size travel in the head
STAMP_BYTES = 8
MARGIN_SECONDS = 0.005  # gloo counts whole milliseconds
CLOSED_BY_TIMEOUT = "Application timeout caused pair closure"  # gloo's words in operations that another one's end ends


class GlooTransport:
    """The ring of `group`, over gloo. Peers that are gone, or silent for `timeout_seconds`, are a TransportError.

    Other hosts have another clock, so `one_host` False counts an arrival from this rank's own post and has no skew.
    """

    def __init__(
        self, group: dist.ProcessGroup, one_host: bool = True, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._one_host, self._timeout = one_host, timeout_seconds
        self._failure = _Failure(timeout_seconds)
        self._watchers: dict[int, _Watcher] = {}

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Raises TransportError if this transport has failed before, or a peer is known to be gone."""
        self._failure.check()
        now = time.monotonic()
        transfer = _GlooTransfer(now, now + self._timeout, self._one_host, self._failure)
        transfer.incoming = _parcels(receives)
        transfer.receiving = self._post(dist.irecv, transfer.incoming, channel)
        transfer.sending = self._post(dist.isend, [parcel.packed(now) for parcel in _parcels(sends)], channel)
        self._watcher(channel).watch(transfer)
        return transfer

    def _post(self, operation: Callable[..., dist.Work | None], parcels: list[_Parcel], channel: int) -> list[_Pending]:
        pending = []
        for parcel in parcels:
            edge, peer = self._edge(operation, parcel.peer, channel), self._ranks[parcel.peer]
            for buffer in (parcel.head, *parcel.large):
                try:
                    work = operation(buffer, peer, self._group, tag=channel)
                except RuntimeError as error:
                    self._failure.add(edge, error, expired=False)
                    self._failure.check()
                assert work is not None, "this process is not of the group"
                pending.append(_Pending(edge, work))
        return pending

    def _edge(self, operation: Callable[..., dist.Work | None], peer: int, channel: int) -> str:
        own, other = self._ranks[self.rank], self._ranks[peer]
        source, target = (own, other) if operation is dist.isend else (other, own)
        return f"rank {source} -> rank {target} ({CHANNELS[channel]})"

    def _watcher(self, channel: int) -> _Watcher:
        if channel not in self._watchers:
            self._watchers[channel] = _Watcher(f"ring {CHANNELS[channel]}")
        return self._watchers[channel]


@dataclass(slots=True)
class _Parcel:
    """The messages to or from one peer, as bytes."""

    peer: int
    small: list[Tensor]
    large: list[Tensor]
    head: Tensor  # the stamp, then the small messages

    def packed(self, now: float) -> _Parcel:
        stamp = torch.tensor([now], dtype=torch.float64).view(torch.uint8)
        torch.cat([stamp, *self.small], out=self.head)
        return self

    def unpack(self) -> float:
        """Fill the small messages. Returns when the peer posted them."""
        stamp, *parts = self.head.split([STAMP_BYTES, *(tensor.numel() for tensor in self.small)])
        with torch.inference_mode():  # a mode of this thread, in which tensors may be written that were made in any
            for tensor, part in zip(self.small, parts, strict=True):
                tensor.copy_(part)
        return float(stamp.view(torch.float64))


def _parcels(messages: Sequence[Message]) -> list[_Parcel]:
    """One a peer, in the order in which they appear; within one, in the order of its messages."""
    return [
        _parcel(peer, [message.tensor for message in messages if message.peer == peer])
        for peer in dict.fromkeys(message.peer for message in messages)
    ]


def _parcel(peer: int, tensors: list[Tensor]) -> _Parcel:
    assert all(tensor.is_contiguous() for tensor in tensors), "what is received into a copy is lost"
    small = [as_bytes(tensor) for tensor in tensors if tensor.nbytes <= PACKED_BYTES]
    large = [as_bytes(tensor) for tensor in tensors if tensor.nbytes > PACKED_BYTES]
    head = torch.empty(STAMP_BYTES + sum(tensor.numel() for tensor in small), dtype=torch.uint8)
    return _Parcel(peer, small, large, head)


class _Failure:
    """The first thing that went wrong with a transport: it is what everybody is told from then on."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._message: str | None = None
        self._known, self._lock = threading.Event(), threading.Lock()

    def add(self, edge: str, error: Exception, expired: bool) -> None:
        """Keeps only the first. An error that follows from a time-out lets the thread that saw that one go first."""
        if CLOSED_BY_TIMEOUT in str(error):
            expired = False  # though its own time may be up as well
            self._known.wait(1.0)
        reason = f"not done within {self._timeout:g} s: the peer is frozen or cut off" if expired else str(error)
        with self._lock:
            self._message = self._message or f"ring transfer {edge} failed: {reason}"
        self._known.set()

    def check(self) -> None:
        if self._message:
            raise TransportError(self._message)


@dataclass(frozen=True, slots=True)
class _Pending:
    edge: str
    work: dist.Work


@dataclass(slots=True)
class _GlooTransfer:
    posted: float
    deadline: float
    one_host: bool
    failure: _Failure
    incoming: list[_Parcel] = field(default_factory=list)
    receiving: list[_Pending] = field(default_factory=list)
    sending: list[_Pending] = field(default_factory=list)
    edge: str = ""  # that is waited for just now
    sent: float = 0.0  # when the last peer posted
    arrived: float = 0.0
    failed: bool = False
    done: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> None:
        """Called by the watcher."""
        try:
            self._await(self.receiving)
            self.sent = max((parcel.unpack() for parcel in self.incoming), default=0.0)
            self.arrived = time.monotonic()
            self._await(self.sending)
        except Exception as error:
            self.failed = True
            self.failure.add(self.edge, error, expired=time.monotonic() > self.deadline - MARGIN_SECONDS)
        self.done.set()

    def _await(self, pending: list[_Pending]) -> None:
        for each in pending:
            self.edge = each.edge
            remaining = self.deadline - time.monotonic()
            each.work.wait(timedelta(seconds=max(remaining, MARGIN_SECONDS)))  # 0 would mean the group's time-out

    def wait(self) -> Arrival | None:
        entered = time.monotonic()
        self.done.wait()
        if self.failed:
            self.failure.check()
        if not self.incoming:
            return None
        sent = self.sent if self.one_host else self.posted
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
