"""Exact attention over a sequence that lies over the ranks of a ring, forward and backward.

Queries stay; keys and values travel. Each rank goes on with one online softmax over the blocks that come by, so the
result is that of dense attention (Liu et al., "Ring Attention with Blockwise Transformers", 2023; the online softmax
and its backward from FlashAttention-2, Dao 2023). A block is posted to the next rank before the compute that hides
its transfer. Keys live in two buffers whatever the size of the ring: the one that is read and sent, the one that is
received. In the backward pass the keys travel again, and the gradients of travelling keys follow one step behind, in
fp32: a hop costs the larger of compute and transfer.

What is computed and sent is decided in `schedule`, how it is sent in `transport`, the arithmetic in `kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Kernel, Saved, state_dtype
from ring_worker.attention.layout import Layout, Range
from ring_worker.attention.masks import Mask
from ring_worker.attention.meter import BACKWARD, FORWARD, PRODUCTS, Meter
from ring_worker.attention.schedule import Schedule, Step, schedule
from ring_worker.attention.transport import GRADIENTS, KEYS, Message, Solo, Transfer, Transport


@dataclass(slots=True)
class Ring:
    """One rank's place in a ring: how the sequence lies over it, and how blocks travel. Reused by every layer.

    `kernel` None: the fastest one for the tensors that come.
    """

    layout: Layout
    transport: Transport = field(default_factory=Solo)
    kernel: Kernel | None = None
    meter: Meter = field(default_factory=Meter)
    _buffers: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.transport.size != self.layout.ranks:
            raise ValueError(f"ring: the transport has {self.transport.size} ranks, the layout {self.layout.ranks}")

    @property
    def rank(self) -> int:
        return self.transport.rank

    def buffer(self, name: str, like_BGKD: Tensor, dtype: torch.dtype) -> Tensor:
        """A buffer [tokens, 2, B, G, D] for the largest shard of the ring, made once: token ranges are contiguous."""
        b, g, _, d = like_BGKD.shape
        key = (name, b, g, d, dtype, like_BGKD.device)
        if key not in self._buffers:
            tokens = max(self.layout.size(r) for r in range(self.layout.ranks))
            self._buffers[key] = torch.empty((tokens, 2, b, g, d), dtype=dtype, device=like_BGKD.device)
        return self._buffers[key]


def ring_attention(
    q_BHSD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, ring: Ring, mask: Mask, scale: float | None = None
) -> Tensor:
    """softmax(q k^T * scale) v of this rank's queries over the whole sequence; differentiable.

    Shapes: q [B, H, S, D], k and v [B, G, S, D], H a multiple of G, S = `ring.layout.size(ring.rank)`, the tokens at
    `ring.layout.positions(ring.rank)`. Every rank of the ring calls it, in the same order, with the same mask. Returns
    [B, H, S, D] in q's dtype; `scale` defaults to D ** -0.5. A query that sees no key gives 0. Raises ValueError for
    shapes that do not fit, TransportError when a peer is gone.
    """
    _check(q_BHSD, k_BGSD, v_BGSD, ring)
    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    result: Tensor = _RingAttention.apply(q_BHSD, k_BGSD, v_BGSD, ring, mask, scale)
    return result


def _check(q: Tensor, k: Tensor, v: Tensor, ring: Ring) -> None:
    own = ring.layout.size(ring.rank)
    if k.shape != v.shape:
        raise ValueError(f"ring attention: k {list(k.shape)} and v {list(v.shape)} differ in shape")
    if q.shape[2] != own or k.shape[2] != own:
        raise ValueError(f"ring attention: rank {ring.rank} owns {own} tokens, but q has {q.shape[2]}, k {k.shape[2]}")
    if q.shape[1] % k.shape[1] or q.shape[::3] != k.shape[::3]:
        raise ValueError(
            f"ring attention: q {list(q.shape)} does not fit k {list(k.shape)} (B, D equal, H multiple of G)"
        )


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ring: Ring, mask: Mask, scale: float) -> Tensor:
        plan = schedule(ring.layout, mask, ring.rank)
        o, lse = _forward(ring, plan, q, (k, v), scale)
        o = o.to(q.dtype)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.ring, ctx.plan, ctx.scale = ring, plan, scale
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, lse = ctx.saved_tensors
        delta = (do.to(lse.dtype) * o.to(lse.dtype)).sum(-1)
        saved = Saved(q, o, do, lse, delta)
        grads = _backward(ctx.ring, ctx.plan, saved, (k, v), ctx.scale)
        return grads.dq.to(q.dtype), grads.dk.to(k.dtype), grads.dv.to(v.dtype), None, None, None


def _forward(ring: Ring, plan: Schedule, q: Tensor, kv: tuple[Tensor, Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """(o, lse) of this rank's queries, in the state's dtype."""
    kernel = ring.kernel or choose(q.device, q.dtype)
    _count(ring, FORWARD, plan, q)
    with ring.meter.span(FORWARD, "wall"):
        carry = Carry.empty(q)
        relay = _Relay(ring, plan, kv, FORWARD)
        for step in plan.steps:
            relay.post(step)
            with ring.meter.span(FORWARD, "compute"):
                kernel.forward(q, Block(*relay.held, step.runs, scale), carry)
            relay.turn()
        return carry.finish()


def _backward(ring: Ring, plan: Schedule, saved: Saved, kv: tuple[Tensor, Tensor], scale: float) -> Gradients:
    """dq, dk and dv of this rank's tokens, in the state's dtype."""
    kernel = ring.kernel or choose(saved.q.device, saved.q.dtype)
    _count(ring, BACKWARD, plan, saved.q)
    with ring.meter.span(BACKWARD, "wall"):
        dtype = state_dtype(saved.q.dtype)
        own = Gradients(*(torch.zeros_like(x, dtype=dtype) for x in (saved.q, *kv)))
        relay, returns = _Relay(ring, plan, kv, BACKWARD), _Returns(ring, plan, own)
        for step in plan.steps:
            relay.post(step)
            returns.post(step)
            with ring.meter.span(BACKWARD, "compute"):
                kernel.backward(saved, Block(*relay.held, step.runs, scale), returns.target)
            relay.turn()
            returns.turn(step)
        returns.home()
        return own


def _count(ring: Ring, phase: str, plan: Schedule, q: Tensor) -> None:
    batch, heads, _, size = q.shape
    ring.meter.count(phase, passes=1, flops=2.0 * PRODUCTS[phase] * plan.pairs * batch * heads * size)


def _views(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a buffer [tokens, 2, B, G, D], each as [B, G, tokens, D]."""
    first, second = buffer.permute(1, 2, 3, 0, 4).unbind(0)
    return first, second


def _await(ring: Ring, phase: str, transfer: Transfer) -> None:
    with ring.meter.span(phase, "exposed"):
        arrival = transfer.wait()
    if arrival:
        ring.meter.note(phase, "comm", arrival.start, arrival.end)
        ring.meter.count(phase, skew=arrival.skew)


def _part(buffer: Tensor, tokens: Range | None, peer: int) -> Message | None:
    return Message(buffer[tokens.start : tokens.stop], peer) if tokens else None


class _Post:
    """Posts exchanges of one channel for one pass, and counts their bytes."""

    def __init__(self, ring: Ring, phase: str, channel: int) -> None:
        self._ring, self._phase, self._channel = ring, phase, channel
        self._transfer: Transfer | None = None

    def post(self, send: Message | None, receive: Message | None) -> None:
        if send:
            self._ring.meter.count(self._phase, sent_bytes=send.tensor.nbytes)
        if send or receive:
            self._transfer = self._ring.transport.exchange(self._channel, send, receive)

    def wait(self) -> None:
        if self._transfer:
            _await(self._ring, self._phase, self._transfer)
            self._transfer = None


class _Relay:
    """Keys and values on their way round the ring. `held`: those of this step's source, each [B, G, K, D]."""

    def __init__(self, ring: Ring, plan: Schedule, kv: tuple[Tensor, Tensor], phase: str) -> None:
        self.held = kv
        self._next, self._before = (plan.rank + 1) % plan.ranks, (plan.rank - 1) % plan.ranks
        self._channel = _Post(ring, phase, KEYS)
        self._turning = len(plan.steps) > 1
        if self._turning:
            self._buffer, self._spare = (ring.buffer(name, kv[0], kv[0].dtype) for name in ("keys-0", "keys-1"))
            if own := plan.steps[0].send:
                for view, x in zip(_views(self._buffer), kv, strict=True):
                    view[:, :, own.start : own.stop] = x[:, :, own.start : own.stop]

    def post(self, step: Step) -> None:
        if self._turning:
            self._channel.post(
                _part(self._buffer, step.send, self._next), _part(self._spare, step.receive, self._before)
            )

    def turn(self) -> None:
        """Take what has arrived; what was sent becomes the buffer for the next arrival."""
        self._channel.wait()
        if self._turning:
            self._buffer, self._spare = self._spare, self._buffer
            self.held = _views(self._buffer)


class _Returns:
    """Gradients of travelling keys, one step behind them. `target`: where this step's share is added."""

    def __init__(self, ring: Ring, plan: Schedule, own: Gradients) -> None:
        self.target = self._own = own
        self._plan = plan
        self._channel = _Post(ring, BACKWARD, GRADIENTS)
        self._going: Range | None = None  # what the last step left to send on, in `_sum`
        if len(plan.steps) > 1:
            names = ("gradients-sum", "gradients-sent", "gradients-arriving")
            self._sum, self._sent, self._arriving = (ring.buffer(name, own.dk, own.dk.dtype) for name in names)

    def post(self, step: Step) -> None:
        """Send on the sum of the step before, and make room for this one's. Step 0 is this rank's own."""
        if step is self._plan.steps[0]:
            return
        after, before = (self._plan.rank + 1) % self._plan.ranks, (self._plan.rank - 1) % self._plan.ranks
        self._channel.post(_part(self._sum, self._going, after), _part(self._arriving, step.return_receive, before))
        self._sum, self._sent = self._sent, self._sum
        if step.return_send:
            self._sum[step.return_send.start : step.return_send.stop].zero_()
        self.target = Gradients(self._own.dq, *_views(self._sum))

    def turn(self, step: Step) -> None:
        """Add what has arrived, after the compute that hid it."""
        self._channel.wait()
        if arrived := step.return_receive:
            part = slice(arrived.start, arrived.stop)
            self._sum[part] += self._arriving[part]
        self._going = step.return_send

    def home(self) -> None:
        """From the last rank that used them the gradients go straight to their owner."""
        last = len(self._plan.steps) - 1
        if not last:
            return
        owner, user = (self._plan.rank - last) % self._plan.ranks, (self._plan.rank + last) % self._plan.ranks
        self._channel.post(_part(self._sum, self._going, owner), _part(self._arriving, self._plan.home, user))
        self._channel.wait()
        if back := self._plan.home:
            for gradient, view in zip((self._own.dk, self._own.dv), _views(self._arriving), strict=True):
                gradient[:, :, back.start : back.stop] += view[:, :, back.start : back.stop]
