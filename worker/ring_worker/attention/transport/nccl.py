"""Point-to-point over NCCL, on a stream of its own beside the kernels. Not run on a GPU yet.

In: messages in device memory, ready in the order of the current stream. Out: the same, in the order of the stream that
is current at the wait. The host never waits: posting lets this transport's stream wait for the current one, and a wait
lets the current one wait for an event. All messages of an exchange are one batch, which NCCL runs as one kernel, so
that neither their order nor the peers' can block them; between two ranks they match in the order of the list. A
process group runs its batches one after the other, whatever the channel: so what crosses between inner rings, which
takes a whole inner round, has a group and a stream of its own where one is given.

Arrivals count from when this rank's own post was due on the device: NCCL does not say when a peer posted, so skew is 0,
and the time of a transfer holds the wait for a peer that is late.

A peer that is gone shows after the fact, in torch's watchdog thread: past the time-out of the *group* (600 s where none
was given), or at an error of NCCL, it ends the process (TORCH_NCCL_ASYNC_ERROR_HANDLING=3, the default, which leaves
the communicator as it is, since aborting it may hang itself). Nothing in Python can catch that; the watchdog's line on
stderr names the operation, the edge it does not name. Only what fails while it is posted becomes a TransportError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ring_worker.attention.transport.interface import (
    CHANNELS,
    OUTER_GRADIENTS,
    OUTER_KEYS,
    Message,
    Transfer,
    TransportError,
)
from ring_worker.attention.transport.streams import StreamTransfer, edges, lent, mark


class NcclTransport:
    """The ring of `group`, over NCCL, on this process's current device. Every rank of the group constructs it.

    `outer`: another group of the same ranks, for the transfers between inner rings; default: the same group.
    """

    def __init__(self, group: dist.ProcessGroup, outer: dist.ProcessGroup | None = None) -> None:
        self._ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), len(self._ranks)
        self._failure: str | None = None
        self._inner = self._outer = _Lane.open(group)
        if outer is not None:
            self._outer = _Lane.open(outer)

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Raises TransportError if it cannot be posted, or if an earlier one could not."""
        if self._failure:
            raise TransportError(self._failure)
        lane = self._outer if channel in (OUTER_KEYS, OUTER_GRADIENTS) else self._inner
        lane.stream.wait_stream(torch.cuda.current_stream())  # buffers are ready, and no longer read
        with torch.cuda.stream(lane.stream):
            start = mark()
            try:
                lane.run([*self._ops(lane, dist.isend, sends), *self._ops(lane, dist.irecv, receives)])
            except RuntimeError as error:
                self._failure = f"ring transfer {self._edges(sends, receives)} ({CHANNELS[channel]}) failed: {error}"
                raise TransportError(self._failure) from error
            return StreamTransfer(start, mark(), received=bool(receives))

    def _ops(
        self, lane: _Lane, operation: Callable[..., dist.Work | None], messages: Sequence[Message]
    ) -> list[dist.P2POp]:
        return [dist.P2POp(operation, lent(m, lane.stream), self._ranks[m.peer], lane.group) for m in messages]

    def _edges(self, sends: Sequence[Message], receives: Sequence[Message]) -> str:
        sources, targets = ([self._ranks[message.peer] for message in messages] for messages in (receives, sends))
        return edges(self._ranks[self.rank], sources, targets)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A process group and the stream on which its batches run, one after the other."""

    group: dist.ProcessGroup
    stream: torch.cuda.Stream

    @classmethod
    def open(cls, group: dist.ProcessGroup) -> _Lane:
        lane = cls(group, torch.cuda.Stream())
        first = torch.zeros(1, device=lane.stream.device)
        dist.all_reduce(first, group=group)  # a group's first batch must not leave any rank out
        return lane

    def run(self, batch: list[dist.P2POp]) -> None:
        for work in dist.batch_isend_irecv(batch):
            work.wait()  # the stream waits, not the host
