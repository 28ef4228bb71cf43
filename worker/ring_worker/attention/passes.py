"""One rank's pass round the ring, forward or backward: post, compute, take what has arrived, and so on.

Queries stay and keys travel, or in a backward pass where that sends fewer bytes, keys stay and queries travel. Each
rank goes on with one online softmax over the blocks that come by (Liu et al., "Ring Attention with Blockwise
Transformers", 2023; softmax and backward from FlashAttention-2, Dao 2023). A block is posted before the compute that
hides its transfer, and gradients that arrive are added after it: a hop costs the larger of compute and transfer.

A pass is a generator that stops before and after each wait. Alone it is run straight to its end; N virtual ranks in one
process take turns at these stops (`ring_worker.attention.transport.loop`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ring_worker.attention.kernels.fastest import Shape
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved, state_dtype
from ring_worker.attention.masks import Mask
from ring_worker.attention.meter import BACKWARD, FORWARD, PRODUCTS
from ring_worker.attention.needs import Asked, key_needs, query_needs, travelling
from ring_worker.attention.ring import Ring
from ring_worker.attention.schedule import Moving, Run, Schedule, schedule
from ring_worker.attention.travel import Group, Relay, Sums

_T = TypeVar("_T")
Pass = Generator[None, None, _T]


@dataclass(frozen=True, slots=True)
class Call:
    """What attention is asked for. `early`: only the queries of each rank's early half."""

    ring: Ring
    mask: Mask
    scale: float
    softcap: float | None = None
    early: bool = False

    @property
    def asked(self) -> Asked:
        return Asked(self.ring.layout, self.mask, self.early)

    def plan(self, moving: Moving = "keys") -> Schedule:
        return schedule(self.asked, self.ring.rank, self.ring.route, moving)

    def block(self, runs: tuple[Run, ...], k: Tensor, v: Tensor) -> Block:
        return Block(k, v, runs, self.scale, self.softcap)


def forward_pass(call: Call, q: Tensor, k: Tensor, v: Tensor) -> Pass[tuple[Tensor, Tensor]]:
    """(o [B, H, S, E], lse [B, H, S]) of this rank's queries, in the state's dtype."""
    ring, plan = call.ring, call.plan()
    kernel = ring.kernel_for(q, _whole(plan, q, k, v))
    _count(call, plan, FORWARD, q, v)
    with ring.meter.span(FORWARD, "wall"):
        carry = Carry.empty(q, v.shape[-1])
        relay = Relay(ring, [Group((k, v))], FORWARD)
        for step in plan.steps:
            relay.post(step)
            with ring.meter.span(FORWARD, "compute"):
                for runs in step.terms:
                    kernel.forward(q, call.block(runs, *relay.held[0]), carry)
            yield
            relay.wait(step)
            yield
        return carry.finish()


def backward_pass(call: Call, saved: Saved, k: Tensor, v: Tensor) -> Pass[Gradients]:
    """dq, dk and dv of this rank's tokens, in the state's dtype."""
    moving = cheaper(call, saved, k, v)
    own = Gradients(*(torch.zeros_like(x, dtype=state_dtype(x.dtype)) for x in (saved.q, k, v)))
    _count(call, call.plan(moving), BACKWARD, saved.q, v)
    return (_keys_travel if moving == "keys" else _queries_travel)(call, saved, (k, v), own)


def _keys_travel(call: Call, saved: Saved, kv: tuple[Tensor, Tensor], own: Gradients) -> Pass[Gradients]:
    ring, plan = call.ring, call.plan("keys")
    kernel = ring.kernel_for(saved.q, _whole(plan, saved.q, *kv))
    with ring.meter.span(BACKWARD, "wall"):
        relay, sums = Relay(ring, [Group(kv)], BACKWARD), Sums(ring, Group((own.dk, own.dv)))
        for step in plan.steps:
            relay.post(step)
            sums.post(step)
            with ring.meter.span(BACKWARD, "compute"):
                for runs in step.terms:
                    kernel.backward(saved, call.block(runs, *relay.held[0]), Gradients(own.dq, *sums.target))
            yield
            relay.wait(step)
            sums.wait(step)
            yield
        yield from _home(sums, plan)
        return own


def _queries_travel(call: Call, saved: Saved, kv: tuple[Tensor, Tensor], own: Gradients) -> Pass[Gradients]:
    """Delta stands in for the output, which the arithmetic needs for nothing else."""
    ring, plan, kernel = call.ring, call.plan("queries"), call.ring.kernel_for(saved.q)
    groups = [Group((saved.q, saved.do)), Group((saved.lse, saved.delta))]
    with ring.meter.span(BACKWARD, "wall"):
        relay, sums = Relay(ring, groups, BACKWARD), Sums(ring, Group((own.dq,)))
        for step in plan.steps:
            relay.post(step)
            sums.post(step)
            with ring.meter.span(BACKWARD, "compute"):
                for runs in step.terms:
                    (q, do), (lse, delta) = relay.held
                    met = saved if step.source == ring.rank else Saved(q, None, do, lse, delta)
                    kernel.backward(met, call.block(runs, *kv), Gradients(sums.target[0], own.dk, own.dv))
            yield
            relay.wait(step)
            sums.wait(step)
            yield
        yield from _home(sums, plan)
        return own


def _home(sums: Sums, plan: Schedule) -> Pass[None]:
    sums.post_home(plan.home)
    yield
    sums.wait_home(plan.home)
    yield


def cheaper(call: Call, saved: Saved, k: Tensor, v: Tensor) -> Moving:
    """What travels in the backward pass: what takes fewer bytes over the whole ring, gradients included.

    A token's keys and values with their gradients are G (D + E) numbers twice; its query with do, lse, delta and dq are
    H (2 D + E) numbers and two. With grouped heads keys are cheaper, without groups queries are.
    """
    if call.ring.rotate != "auto":
        return "queries" if call.ring.rotate == "queries" else "keys"
    number, state = k.element_size(), saved.lse.element_size()
    sums = call.ring.gradient_dtype.itemsize if call.ring.gradient_dtype else state
    width, value = k.shape[-1], v.shape[-1]
    keys = k.shape[1] * (width + value) * (number + sums)
    queries = saved.q.shape[1] * ((width + value) * number + 2 * state + width * sums)
    if queries >= keys:  # counting who reads which queries costs a look at every token
        return "keys"
    fewer = travelling(query_needs(call.asked)) * queries < travelling(key_needs(call.asked)) * keys
    return "queries" if fewer else "keys"


def _whole(plan: Schedule, q: Tensor, k: Tensor, v: Tensor) -> Shape | None:
    """The shape, if all of the attention is one run over all rows and keys."""
    runs = [run for step in plan.steps for runs in step.terms for run in runs]
    shapes = (Shape.of(q, k, v, causal) for causal in (True, False))
    return next((shape for shape in shapes if len(plan.steps) == 1 and runs == [shape.run]), None)


def _count(call: Call, plan: Schedule, phase: str, q: Tensor, v: Tensor) -> None:
    """FLOPs of unmasked pairs: a product over the head size of keys or of values each, half and half."""
    batch, heads, _, width = q.shape
    mean_width = (width + v.shape[-1]) / 2
    flops = 2.0 * PRODUCTS[phase] * plan.pairs * batch * heads * mean_width
    call.ring.meter.count(phase, passes=1, flops=flops)
