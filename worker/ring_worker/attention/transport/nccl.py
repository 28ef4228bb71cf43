"""Point-to-point over NCCL, on a stream of its own beside the kernels. Not run on a GPU yet.

In: messages in device memory, ready in the order of the current stream. Out: the same, in the order of the stream that
is current at the wait. The host never waits: posting lets this transport's stream wait for the current one, and a wait
lets the current one wait for an event. All messages of an exchange are one batch, which NCCL runs as one kernel, so
that neither their order nor the peers' can block them; between two ranks they match in the order of the list. A
process group runs its batches one after the other, whatever the channel.

The allocator knows a tensor by the stream on which it was made. What travels is used by another one, so each tensor is
recorded there: freed early, its memory is not given away before the transfer is over.

Arrivals count from when this rank's own post was due on the device: NCCL does not say when a peer posted, so skew is 0,
and the time of a transfer holds the wait for a peer that is late.

A peer that is gone shows after the fact, in torch's watchdog thread: past the time-out of the *group* (600 s where none
was given), or at an error of NCCL, it ends the process (TORCH_NCCL_ASYNC_ERROR_HANDLING=3, the default, without
aborting the communicator, since that may hang itself). Nothing in Python can catch that; the watchdog's line on stderr
names the operation, the edge it does not name. Only what fails while it is posted becomes a TransportError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ring_worker.attention.transport.interface import CHANNELS, Arrival, Message, Transfer, TransportError, as_bytes


class NcclTransport:
    """The ring of `group`, over NCCL, on this process's current device. Every rank of the group constructs it."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._stream = torch.cuda.Stream()
        self._failure: str | None = None
        dist.all_reduce(torch.zeros(1, device="cuda"), group=group)  # a group's first batch must not leave any rank out

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Raises TransportError if it cannot be posted, or if an earlier one could not."""
        if self._failure:
            raise TransportError(self._failure)
        self._stream.wait_stream(torch.cuda.current_stream())  # buffers are ready, and no longer read
        with torch.cuda.stream(self._stream):
            start = _event()
            try:
                self._run(sends, receives)
            except RuntimeError as error:
                self._failure = f"ring transfer {self._edges(sends, receives)} ({CHANNELS[channel]}) failed: {error}"
                raise TransportError(self._failure) from error
            return _NcclTransfer(start, _event(), received=bool(receives))

    def _run(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        batch = []
        for operation, messages in ((dist.isend, sends), (dist.irecv, receives)):
            for message in messages:
                assert message.tensor.is_contiguous(), "what is received into a copy is lost"
                message.tensor.record_stream(self._stream)
                batch.append(dist.P2POp(operation, as_bytes(message.tensor), self._ranks[message.peer], self._group))
        for work in dist.batch_isend_irecv(batch):
            work.wait()  # the stream waits, not the host

    def _edges(self, sends: Sequence[Message], receives: Sequence[Message]) -> str:
        own = self._ranks[self.rank]
        ends = [(self._ranks[peer], own) for peer in dict.fromkeys(message.peer for message in receives)]
        ends += [(own, self._ranks[peer]) for peer in dict.fromkeys(message.peer for message in sends)]
        return " or ".join(f"rank {source} -> rank {target}" for source, target in ends)


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
