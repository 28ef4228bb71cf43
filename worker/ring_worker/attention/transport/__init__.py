"""How blocks get from one rank of the ring to another."""

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
)

__all__ = [
    "CHANNELS",
    "GRADIENTS",
    "HEADS",
    "KEYS",
    "OUTER_GRADIENTS",
    "OUTER_KEYS",
    "Arrival",
    "Message",
    "Solo",
    "Transfer",
    "Transport",
    "TransportError",
]
