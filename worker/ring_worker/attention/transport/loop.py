"""N virtual ranks in one process, on one device, that take turns: for tests, and to measure a ring's whole arithmetic.

The passes of all ranks are generators that stop before and after each wait (`ring_worker.attention.passes`). `lockstep`
runs each of them to its next stop in turn, so that every rank has posted before any rank waits, and every rank has
received before any goes on. A message is therefore a reference until it is copied, once, into the tensor that it is
for. Nothing overlaps here: this transport shows arithmetic, not speed of links.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ring_worker.attention.transport.interface import Message, Transfer, TransportError

_T = TypeVar("_T")
Boxes = defaultdict[tuple[int, int, int], deque[Tensor]]


class LoopTransport:
    """One virtual rank's end. `make(n)` gives all of them."""

    def __init__(self, rank: int, size: int, boxes: Boxes) -> None:
        self.rank, self.size, self._boxes = rank, size, boxes

    @classmethod
    def make(cls, size: int) -> list[LoopTransport]:
        boxes: Boxes = defaultdict(deque)
        return [cls(rank, size, boxes) for rank in range(size)]

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        for message in sends:
            self._boxes[self.rank, message.peer, channel].append(message.tensor)
        return _LoopTransfer(self, channel, receives)

    def take(self, channel: int, message: Message) -> None:
        box = self._boxes[message.peer, self.rank, channel]
        if not box:
            raise TransportError(f"ring transfer rank {message.peer} -> rank {self.rank} failed: nothing was sent")
        message.tensor.copy_(box.popleft())


@dataclass(frozen=True, slots=True)
class _LoopTransfer:
    end: LoopTransport
    channel: int
    receives: Sequence[Message]

    def wait(self) -> None:
        for message in self.receives:
            self.end.take(self.channel, message)


def lockstep(passes: Sequence[Generator[None, None, _T]]) -> list[_T]:
    """Run all passes, each to its next stop in turn, and return what they return."""
    results: dict[int, _T] = {}
    while len(results) < len(passes):
        for rank, one in enumerate(passes):
            try:
                next(one)
            except StopIteration as end:
                results[rank] = end.value
    return [results[rank] for rank in range(len(passes))]


def straight(one: Generator[None, None, _T]) -> _T:
    """Run one pass to its end: its waits wait."""
    return lockstep([one])[0]
