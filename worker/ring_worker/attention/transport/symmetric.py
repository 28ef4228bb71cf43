"""Pulls from the memory of other GPUs of this node, through torch's symmetric memory. Not run on a GPU yet.

In and out as with NCCL. Every rank has staging memory that the others can read. A sender copies its messages there and
signals the receiver; the receiver copies them out, without a kernel of the sender's taking part, and signals back that
the place is free. Signals are flags in device memory, put and awaited by tiny kernels on this transport's stream, so
the host never waits.

Places. On each channel a rank has one for its neighbour (rank + 1) and one for any other peer, both in two copies that
an edge uses in turn: both of its ends count the exchanges in which it carries something, so nobody has to say which
copy is meant. A sender waits before it writes over a copy until the last one who was sent it has taken it, two
exchanges of that edge ago or more. Neighbour and other peer do not share a place, since their turns are not in step.

It cannot lock up as long as all ranks post their exchanges in one order: all of an exchange's offers come before its
waits, and every wait is for something that was posted earlier, or in the same exchange, elsewhere.

Torch orders all signals of a process group on a device, whatever the streams ("symmetric memory stream ordering" in its
SymmetricMemory.hpp): a stream a channel would gain nothing, so there is one. A transfer that waits for a late peer
holds up the later ones of other channels.

A signal that does not come within the time-out makes its kernel trap: it prints the ranks, and every later call of CUDA
in the process fails. That is no TransportError, but the process ends, and is started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.transport.interface import CHANNELS, GRADIENTS, KEYS, Message, Transfer
from ring_worker.attention.transport.streams import StreamTransfer, lent, mark

TIMEOUT_SECONDS = 600.0
COPIES = 2
ALIGNMENT = 128  # bytes: of every message in a place, and of the places
NEIGHBOUR, OTHER = 0, 1  # places
READY, TAKEN = 0, 1  # signals


class SymmetricTransport:
    """The ring of `group`, whose ranks are GPUs that reach each other's memory. Every rank constructs it, alike.

    `capacity_bytes`: what one exchange may send to one peer, each message rounded up to 128. `channels`: those that
    are used; each takes four times the capacity on every rank. In one exchange a rank may send to its neighbour
    (rank + 1) and to one other. Raises ValueError where there is no GPU.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        capacity_bytes: int,
        channels: Sequence[int] = (KEYS, GRADIENTS),
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        if not torch.cuda.is_available():
            raise ValueError("symmetric transport: needs GPUs of one node, but torch sees none. On CPUs take gloo.")
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._capacity, self._channels = _aligned(capacity_bytes), tuple(channels)
        self._timeout_ms = round(1000 * timeout_seconds)
        self._stream = torch.cuda.Stream()
        self._sent: Counter[tuple[int, int]] = Counter()  # exchanges by (channel, peer)
        self._received: Counter[tuple[int, int]] = Counter()
        self._last: dict[tuple[int, int, int], int] = {}  # who was sent a (channel, place, copy)
        self._open(group)

    def _open(self, group: dist.ProcessGroup) -> None:
        from torch.distributed import _symmetric_memory as symm_mem  # private to torch: only who asks depends on it

        shape = (len(self._channels), 2, COPIES, self._capacity)
        self._own = symm_mem.empty(shape, dtype=torch.uint8, device=self._stream.device)  # must live as long as we do
        self._memory: Any = symm_mem.rendezvous(self._own, group)
        self._staging = [
            self._memory.get_buffer(rank, shape, torch.uint8, self._memory.offset) for rank in range(self.size)
        ]

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Raises ValueError for more than the staging memory holds, and for peers or channels that it has not."""
        self._check(channel, sends)
        self._stream.wait_stream(torch.cuda.current_stream())  # buffers are ready, and no longer read
        with torch.cuda.stream(self._stream):
            start = mark()
            for peer, tensors in self._by_peer(sends).items():
                self._offer(channel, peer, tensors)
            for peer, tensors in self._by_peer(receives).items():
                self._take(channel, peer, tensors)
            return StreamTransfer(start, mark(), received=bool(receives))

    def _check(self, channel: int, sends: Sequence[Message]) -> None:
        where = f"symmetric transport, {CHANNELS[channel]}"
        if channel not in self._channels:
            raise ValueError(f"{where}: has no staging memory. Name the channel when the transport is constructed.")
        others = sorted({message.peer for message in sends} - {self._after(self.rank)})
        if len(others) > 1:
            raise ValueError(f"{where}: sends to {others} beside the neighbour, but has room for one. Take NCCL.")
        for peer in {message.peer for message in sends}:
            size = sum(_aligned(message.tensor.nbytes) for message in sends if message.peer == peer)
            if size > self._capacity:
                raise ValueError(
                    f"{where}: {size} bytes for position {peer}, but the staging memory holds {self._capacity}. "
                    f"Construct the transport with capacity_bytes={size}."
                )

    def _by_peer(self, messages: Sequence[Message]) -> dict[int, list[Tensor]]:
        return {
            peer: [lent(message, self._stream) for message in messages if message.peer == peer]
            for peer in dict.fromkeys(message.peer for message in messages)
        }

    def _offer(self, channel: int, peer: int, tensors: list[Tensor]) -> None:
        """Copy to the staging memory, once it is free, and say so."""
        place = NEIGHBOUR if peer == self._after(self.rank) else OTHER
        copy = self._turn(self._sent, channel, peer)
        if (last := self._last.get((channel, place, copy))) is not None:
            self._memory.wait_signal(last, self._signal(channel, TAKEN, copy), self._timeout_ms)
        for tensor, part in zip(tensors, self._parts(self.rank, (channel, place, copy), tensors), strict=True):
            part.copy_(tensor)
        self._memory.put_signal(peer, self._signal(channel, READY, copy), self._timeout_ms)
        self._last[channel, place, copy] = peer

    def _take(self, channel: int, peer: int, tensors: list[Tensor]) -> None:
        """Copy from the peer's staging memory, once it is filled, and say so."""
        place = NEIGHBOUR if self.rank == self._after(peer) else OTHER
        copy = self._turn(self._received, channel, peer)
        self._memory.wait_signal(peer, self._signal(channel, READY, copy), self._timeout_ms)
        for tensor, part in zip(tensors, self._parts(peer, (channel, place, copy), tensors), strict=True):
            tensor.copy_(part)
        self._memory.put_signal(peer, self._signal(channel, TAKEN, copy), self._timeout_ms)

    def _parts(self, owner: int, at: tuple[int, int, int], tensors: list[Tensor]) -> list[Tensor]:
        """Where in the owner's staging memory messages of these sizes lie: end to end, aligned."""
        channel, place, copy = at
        memory: Tensor = self._staging[owner][self._channels.index(channel), place, copy]
        parts, start = [], 0
        for tensor in tensors:
            parts.append(memory[start : start + tensor.numel()])
            start += _aligned(tensor.numel())
        return parts

    def _signal(self, channel: int, kind: int, copy: int) -> int:
        """Torch's number for it: one between each two ranks. It has room for 32 with up to 72 ranks."""
        return (self._channels.index(channel) * 2 + kind) * COPIES + copy

    def _after(self, position: int) -> int:
        return (position + 1) % self.size

    @staticmethod
    def _turn(counter: Counter[tuple[int, int]], channel: int, peer: int) -> int:
        """Which copy an edge uses now. Counts."""
        counter[channel, peer] += 1
        return counter[channel, peer] % COPIES


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
