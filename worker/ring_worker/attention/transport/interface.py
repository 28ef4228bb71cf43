"""What every transport does, so that the ring need not know how its blocks travel.

`exchange` posts sends and receives and returns at once; the `Transfer` it gives is waited for after the compute that
hides it. After the wait the received tensors may be read and the sent ones written. One transfer a channel is in flight
on a rank. Between two ranks, the messages of a channel arrive in the order in which they were posted; both sides post
equally many, of equal sizes. Peers are positions in the ring. A transfer that fails names its edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ring_worker.attention.meter import Mark

CHANNELS = ("keys", "gradients", "outer keys", "outer gradients", "heads")
KEYS, GRADIENTS, OUTER_KEYS, OUTER_GRADIENTS, HEADS = range(len(CHANNELS))


class TransportError(RuntimeError):
    """A transfer failed: the message names the edge of the ring."""


@dataclass(frozen=True, slots=True)
class Message:
    """A contiguous tensor to or from the ring position `peer`."""

    tensor: Tensor
    peer: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """When the received messages were on their way, from the last of all posts (marks of the transport's clock).

    `skew` in seconds: the part of the wait in which a peer had not even posted, where the transport can tell, else 0.
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

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        """Post all of them; either list may be empty, but not both."""


class Solo:
    """A ring of one, which sends nothing."""

    rank, size = 0, 1

    def exchange(self, channel: int, sends: Sequence[Message], receives: Sequence[Message]) -> Transfer:
        raise AssertionError("a ring of one rank has nobody to exchange with")


def as_bytes(tensor: Tensor) -> Tensor:
    """The same memory as uint8, which every back end carries whatever the dtype."""
    return tensor.flatten().view(torch.uint8)
