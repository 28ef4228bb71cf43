"""Activation checkpointing that keeps the attention's output, so that the dearest part is not computed twice.

    checkpoint(block, x, use_reentrant=False, context_fn=keep_output("all"))

The first time, ring attention in the checkpointed part leaves its output and lse here; when the part is run again for
its gradients, it takes them back and runs no ring at all. Kept are E + 1 numbers a head and token, in the output's and
the state's dtype. With "late" only the late half of each rank's tokens is kept: half the memory, and in a causal zigzag
ring only a quarter of the work is done again, since early queries see few keys.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from ring_worker.attention.ring import Ring

KEEP = ("all", "late")


@dataclass(frozen=True, slots=True)
class Kept:
    """`o` [B, H, rows, E] and `lse` [B, H, rows] of all rows but the first `missing`."""

    o: Tensor
    lse: Tensor
    missing: int


@dataclass(slots=True)
class _Store:
    which: str
    outputs: deque[Kept] = field(default_factory=deque)
    replaying: bool = False


_here = threading.local()


def keep_output(which: str) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """`context_fn` for torch.utils.checkpoint. `which`: all | late. Raises ValueError for anything else."""
    if which not in KEEP:
        raise ValueError(f"keep_output: {which!r} is none of {', '.join(KEEP)}")

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        store = _Store(which)
        return _using(store, replaying=False), _using(store, replaying=True)

    return contexts


@contextmanager
def _using(store: _Store, replaying: bool) -> Iterator[None]:
    before = getattr(_here, "store", None)
    _here.store, store.replaying = store, replaying
    try:
        yield
    finally:
        _here.store = before


def remember(output: tuple[Tensor, Tensor], ring: Ring) -> tuple[Tensor, Tensor]:
    """Keep what is asked for, if anything, and hand the output on."""
    store: _Store | None = getattr(_here, "store", None)
    if store and not store.replaying:
        missing = ring.layout.early(ring.rank) if store.which == "late" else 0
        o, lse = (x[:, :, missing:].clone() if missing else x.detach() for x in output)
        store.outputs.append(Kept(o, lse, missing))
    return output


def recall() -> Kept | None:
    """What was kept of this call when it ran first."""
    store: _Store | None = getattr(_here, "store", None)
    return store.outputs.popleft() if store and store.replaying else None
