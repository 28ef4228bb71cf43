"""Point-to-point over NCCL, on a stream of its own beside the kernels. Not run on a GPU yet.

In: messages in device memory, ready in the order of the current stream. Out: the same, in the order of the stream that
is current at the wait. The host never waits: posting lets this transport's stream wait for the current one, and a wait
lets the current one wait for an event. All messages of an exchange are one batch, which NCCL runs as one kernel, so
that neither their order nor the peers' can block them; between two ranks they match in the order of the list. A
process group runs its batches one after the other, whatever the channel.

Arrivals count from when this rank's own post was due on the device: NCCL does not say when a peer posted, so skew is 0,
and the time of a transfer holds the wait for a peer that is late.

A peer that is gone shows after the fact, in torch's watchdog thread: past the time-out of the *group* (600 s where none
was given), or at an error of NCCL, it ends the process (TORCH_NCCL_ASYNC_ERROR_HANDLING=3, the default, which leaves
the communicator as it is, since aborting it may hang itself). Nothing in Python can catch that; the watchdog's line on
stderr names the operation, the edge it does not name. Only what fails while it is posted becomes a TransportError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from ring_worker.attention.transport.interface import CHANNELS, Message, Transfer, TransportError
from ring_worker.attention.transport.streams import StreamTransfer, edges, lent, mark


class NcclTransport:
    """The ring of `group`, over NCCL, on this process's current device. Every rank of the group constructs it."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._stream = torch.cuda.Stream()
        self._failure: str | None = None
        first = torch.zeros(1, device=self._stream.device)
        dist.all_reduce(first, group=group)  # a group's first batch must not leave any rank out

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Raises TransportError if it cannot be posted, or if an earlier one could not."""
        if self._failure:
            raise TransportError(self._failure)
        self._stream.wait_stream(torch.cuda.current_stream())  # buffers are ready, and no longer read
        with torch.cuda.stream(self._stream):
            start = mark()
            try:
                self._run([*self._ops(dist.isend, sends), *self._ops(dist.irecv, receives)])
            except RuntimeError as error:
                self._failure = f"ring transfer {self._edges(sends, receives)} ({CHANNELS[channel]}) failed: {error}"
                raise TransportError(self._failure) from error
            return StreamTransfer(start, mark(), received=bool(receives))

    def _ops(self, operation: Callable[..., dist.Work | None], messages: Sequence[Message]) -> list[dist.P2POp]:
        return [dist.P2POp(operation, lent(m, self._stream), self._ranks[m.peer], self._group) for m in messages]

    def _run(self, batch: list[dist.P2POp]) -> None:
        for work in dist.batch_isend_irecv(batch):
            work.wait()  # the stream waits, not the host

    def _edges(self, sends: Sequence[Message], receives: Sequence[Message]) -> str:
        sources, targets = ([self._ranks[message.peer] for message in messages] for messages in (receives, sends))
        return edges(self._ranks[self.rank], sources, targets)
