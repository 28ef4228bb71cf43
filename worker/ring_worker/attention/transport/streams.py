"""What transports between GPUs share: the host posts work to a stream, and never waits.

A transfer is two events on the transport's stream: from when this rank's own post was due, and when all of it was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ring_worker.attention.transport.interface import Arrival, Message, as_bytes


@dataclass(frozen=True, slots=True)
class StreamTransfer:
    """Its wait is one of the current stream."""

    start: torch.cuda.Event
    end: torch.cuda.Event
    received: bool

    def wait(self) -> Arrival | None:
        torch.cuda.current_stream().wait_event(self.end)
        return Arrival(self.start, self.end) if self.received else None


def mark() -> torch.cuda.Event:
    """Where the current stream is now."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def lent(message: Message, stream: torch.cuda.Stream) -> Tensor:
    """The message as bytes, for use on `stream`.

    The allocator knows a tensor by the stream on which it was made. Recorded on this one too, it may be freed early:
    its memory is not given away before this stream has come so far.
    """
    assert message.tensor.is_contiguous(), "what is received into a copy is lost"
    message.tensor.record_stream(stream)
    return as_bytes(message.tensor)


def edges(own: int, sources: Sequence[int], targets: Sequence[int]) -> str:
    """For people: from each source to `own`, and from there to each target; each named once."""
    ends = [(source, own) for source in dict.fromkeys(sources)] + [(own, target) for target in dict.fromkeys(targets)]
    return " or ".join(f"rank {source} -> rank {target}" for source, target in ends)
