"""What moves round the ring in a pass: tensors on their way, and the sums of their gradients behind them.

In: steps of the schedule. Tensors that travel together lie in one buffer with the tokens first, so that a range of
tokens is contiguous and travels without being packed; only what a rank sends of its own tokens is copied, once. A
relay holds two such buffers: the one that is read and sent, the one that is received. In a ring of rings two more
cross to the next inner ring meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ring_worker.attention.meter import BACKWARD
from ring_worker.attention.ranges import Ranges
from ring_worker.attention.ring import Ring
from ring_worker.attention.schedule import Exchange, Parcels, Returns, Step
from ring_worker.attention.transport import (
    GRADIENTS,
    KEYS,
    OUTER_GRADIENTS,
    OUTER_KEYS,
    Message,
    Transfer,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors [B, X, S, *] or [B, X, S] of one dtype that share a buffer [tokens, B, X, sum of *]."""

    tensors: tuple[Tensor, ...]

    def buffer(self, tokens: int, dtype: torch.dtype | None = None) -> Tensor:
        first = self.tensors[0]
        shape = (tokens, *first.shape[:2], sum(self._widths()))
        return torch.empty(shape, dtype=dtype or first.dtype, device=first.device)

    def kept(self, ring: Ring, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The ring's buffer of this name for such tensors."""
        first = self.tensors[0]
        kind = (*first.shape[:2], *self._widths(), dtype or first.dtype, first.device)
        return ring.buffer(name, kind, lambda tokens: self.buffer(tokens, dtype))

    def views(self, buffer: Tensor) -> tuple[Tensor, ...]:
        """The parts of a buffer, each in its tensor's order of dims."""
        parts = buffer.permute(1, 2, 0, 3).split(self._widths(), dim=-1)
        return tuple(p if t.ndim == 4 else p.squeeze(-1) for p, t in zip(parts, self.tensors, strict=True))

    def packed(self, start: int, stop: int) -> Tensor:
        """A copy of a range of tokens, as a buffer."""
        buffer = self.buffer(stop - start)
        for view, tensor in zip(self.views(buffer), self.tensors, strict=True):
            view.copy_(tensor[:, :, start:stop])
        return buffer

    def add(self, buffer: Tensor, ranges: Ranges) -> None:
        """Add ranges of a buffer to the tensors."""
        for view, tensor in zip(self.views(buffer), self.tensors, strict=True):
            for start, stop in ranges:
                tensor[:, :, start:stop] += view[:, :, start:stop]

    def _widths(self) -> list[int]:
        return [t.shape[3] if t.ndim == 4 else 1 for t in self.tensors]


class _Channel:
    """Posts exchanges on one channel for one pass, counts their bytes, and waits."""

    def __init__(self, ring: Ring, phase: str, channel: int) -> None:
        self._ring, self._phase, self._channel = ring, phase, channel
        self._transfer: Transfer | None = None
        self._sent: list[Message] = []  # packed copies must live until they are sent

    def post(self, sends: list[Message], receives: list[Message]) -> None:
        if not sends and not receives:
            return
        self._ring.meter.count(self._phase, sent_bytes=sum(m.tensor.nbytes for m in sends))
        self._transfer, self._sent = self._ring.transport.exchange(self._channel, sends, receives), sends

    def wait(self) -> None:
        if self._transfer is None:
            return
        with self._ring.meter.span(self._phase, "exposed"):
            arrival = self._transfer.wait()
        if arrival:
            self._ring.meter.note(self._phase, "comm", arrival.start, arrival.end)
            self._ring.meter.count(self._phase, skew=arrival.skew)
        self._transfer, self._sent = None, []


def _messages(parcels: Parcels, buffers: Sequence[Tensor]) -> list[Message]:
    """Ranges of each buffer, in an order that both ends share."""
    return [Message(b[start:stop], parcel.peer) for parcel in parcels for b in buffers for start, stop in parcel.ranges]


class Relay:
    """Moving tensors on their way round the ring. `held`: those of this step's source, group by group."""

    def __init__(self, ring: Ring, groups: Sequence[Group], phase: str) -> None:
        self._ring, self._groups = ring, groups
        self.held = [group.tensors for group in groups]
        self._buffers: list[Tensor] = []  # of what is held, unless it is this rank's own
        self._next: list[Tensor] = []
        self._round: list[Tensor] = []
        self._step, self._cross = _Channel(ring, phase, KEYS), _Channel(ring, phase, OUTER_KEYS)

    def post(self, step: Step) -> None:
        self._next = self._post(self._step, step.next, "keys")
        if step.starts_round:
            self._round = self._post(self._cross, step.round, "outer-keys")

    def wait(self, step: Step) -> None:
        """Until what the next step reads is here, and what this one sent is gone."""
        self._step.wait()
        if step.ends_round:
            self._cross.wait()
        self._buffers = self._round if step.ends_round else self._next
        self.held = [group.views(buffer) for group, buffer in zip(self._groups, self._buffers, strict=False)]

    def _post(self, channel: _Channel, exchange: Exchange, kind: str) -> list[Tensor]:
        """The buffers in which the exchange will arrive: those of the two that are not held."""
        coming = self._free(kind) if exchange.received else []
        sends = _messages(exchange.held, self._buffers) + list(self._own(exchange))
        channel.post(sends, _messages(exchange.received, coming))
        return coming

    def _own(self, exchange: Exchange) -> Iterator[Message]:
        for parcel in exchange.own:
            for group in self._groups:
                for start, stop in parcel.ranges:
                    yield Message(group.packed(start, stop), parcel.peer)

    def _free(self, kind: str) -> list[Tensor]:
        first = [group.kept(self._ring, f"{kind}-0") for group in self._groups]
        if not self._buffers or self._buffers[0] is not first[0]:
            return first
        return [group.kept(self._ring, f"{kind}-1") for group in self._groups]


class Sums:
    """Gradients of the moving tensors, one step behind them. `target`: what this step's share is added to.

    `own`: gradients of this rank's own tokens, in which all sums end.
    """

    def __init__(self, ring: Ring, own: Group) -> None:
        self._ring, self._own = ring, own
        self.target = own.tensors
        self._sum: Tensor | None = None  # of the last step, unless it was this rank's own
        self._leaving: Tensor | None = None  # of the last inner round, on its way home
        self._step, self._cross = _Channel(ring, BACKWARD, GRADIENTS), _Channel(ring, BACKWARD, OUTER_GRADIENTS)
        self._returning_round: Parcels = ()

    def post(self, step: Step) -> None:
        """Send on the sum of the step before, and make room for this one's."""
        self._post(self._step, step.sums, "returning")
        if step.starts_round:
            self._post(self._cross, step.round_sums, "outer-returning")
            self._leaving, self._returning_round = self._sum, step.round_sums.returning
        if step.source == self._ring.rank:
            self.target, self._sum = self._own.tensors, None
        elif step.read:
            self._sum = self._free()
            for start, stop in step.read:
                self._sum[start:stop].zero_()
            self.target = self._own.views(self._sum)

    def wait(self, step: Step) -> None:
        """Add what has arrived, after the compute that hid it."""
        self._step.wait()
        for start, stop in (r for parcel in step.sums.arriving for r in parcel.ranges):
            assert self._sum is not None
            self._sum[start:stop] += self._wire("arriving")[start:stop]
        self._add("returning", step.sums.returning)
        if step.ends_round:
            self._cross.wait()
            self._add("outer-returning", self._returning_round)

    def post_home(self, home: Returns) -> None:
        self._post(self._step, home, "returning")

    def wait_home(self, home: Returns) -> None:
        self._step.wait()
        self._add("returning", home.returning)

    def _post(self, channel: _Channel, returns: Returns, name: str) -> None:
        sends = [
            Message(m.tensor if self._dtype is None else m.tensor.to(self._dtype), m.peer)
            for m in _messages(returns.passed + returns.home, [] if self._sum is None else [self._sum])
        ]
        receives = _messages(returns.arriving, [self._wire("arriving")]) if returns.arriving else []
        receives += _messages(returns.returning, [self._wire(name)]) if returns.returning else []
        channel.post(sends, receives)

    def _add(self, name: str, parcels: Parcels) -> None:
        for parcel in parcels:
            self._own.add(self._wire(name), parcel.ranges)

    def _free(self) -> Tensor:
        """A buffer that is neither on its way on nor on its way home."""
        sums = (self._own.kept(self._ring, f"sum-{n}") for n in range(3))
        return next(b for b in sums if b is not self._sum and b is not self._leaving)

    def _wire(self, name: str) -> Tensor:
        return self._own.kept(self._ring, name, self._dtype)

    @property
    def _dtype(self) -> torch.dtype | None:
        return self._ring.gradient_dtype
