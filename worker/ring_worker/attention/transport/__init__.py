"""How blocks get from one rank of a ring to another.

In: lists of tensors for other positions of the ring, and tensors that await theirs. Out: the same tensors, filled, and
when they were on their way. The ring posts before the compute that hides a transfer and waits after it; what lies
between is this package's alone, so the ring is the same program over sockets, over NCCL, through the memory of a
neighbouring GPU, and in one process. `interface` is the contract, and needs no process group; each other module is one
way to keep it. docs/transports.md compares them.
"""

from ring_worker.attention.transport.connect import connect
from ring_worker.attention.transport.gloo import GlooTransport
from ring_worker.attention.transport.interface import (
    CHANNELS,
    GRADIENTS,
    HEADS,
    KEYS,
    OUTER_GRADIENTS,
    OUTER_KEYS,
    Arrival,
    Message,
    Solo,
    Transfer,
    Transport,
    TransportError,
    as_bytes,
)
from ring_worker.attention.transport.nccl import NcclTransport
from ring_worker.attention.transport.symmetric import SymmetricTransport

__all__ = [
    "CHANNELS",
    "GRADIENTS",
    "HEADS",
    "KEYS",
    "OUTER_GRADIENTS",
    "OUTER_KEYS",
    "Arrival",
    "GlooTransport",
    "Message",
    "NcclTransport",
    "Solo",
    "SymmetricTransport",
    "Transfer",
    "Transport",
    "TransportError",
    "as_bytes",
    "connect",
]
