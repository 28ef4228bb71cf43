"""How fast the isolated kernel is here: the yardstick of ring efficiency.

Every rank times its kernel on one unmasked block of its own shapes, all ranks at once and no transfer between them:
what this machine gives a rank when nothing but attention runs. On ranks that share cores (a laptop) that is a share of
the cores, so the efficiency that is measured against it tells of the ring and not of the sharing.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved, state_dtype
from ring_worker.attention.meter import BACKWARD, FORWARD, PRODUCTS, Calibration, Clock, Mark
from ring_worker.attention.ring import Ring
from ring_worker.attention.schedule import Run

SAMPLES = 7
SAMPLE_SECONDS = 0.03  # of each, at least: longer than a busy machine's time slices


def calibrate(ring: Ring, q_BHSD: Tensor, k_BGSD: Tensor, group: dist.ProcessGroup | None) -> Calibration:
    """Rates of ring's kernel for these shapes. Every rank of `group` calls it at the same time."""
    kernel = ring.kernel or choose(q_BHSD.device, q_BHSD.dtype)
    batch, heads, rows, size = q_BHSD.shape
    q, k = torch.randn_like(q_BHSD), torch.randn_like(k_BGSD)
    block = Block(k, k, [Run(0, rows, 0, k.shape[2], 0, 0)], size**-0.5)
    carry = Carry.empty(q)
    kernel.forward(q, block, carry)
    o, lse = carry.finish()
    saved = Saved(q, o.to(q.dtype), torch.randn_like(q), lse, torch.zeros_like(lse))
    gradients = Gradients(*(torch.zeros_like(x, dtype=state_dtype(q.dtype)) for x in (q, k, k)))

    def forward() -> None:
        kernel.forward(q, block, carry)

    def backward() -> None:
        kernel.backward(saved, block, gradients)

    rates = {}
    for phase, work in ((FORWARD, forward), (BACKWARD, backward)):
        flops = 2.0 * PRODUCTS[phase] * rows * k.shape[2] * batch * heads * size
        rates[phase] = flops / _seconds(work, ring.meter.clock, group)
    return Calibration(rates, _empty_wait(ring.meter.clock))


def _seconds(work: Callable[[], None], clock: Clock, group: dist.ProcessGroup | None) -> float:
    """One call's median, in samples of as many calls on end as make them long enough."""
    once = _timed(work, 1, clock)  # warms up
    once = _timed(work, 3, clock)
    calls = max(1, round(SAMPLE_SECONDS / once))
    if group:
        dist.barrier(group)
    return statistics.median(_timed(work, calls, clock) for _ in range(SAMPLES))


def _timed(work: Callable[[], None], calls: int, clock: Clock) -> float:
    """Seconds a call."""
    start = clock.mark()
    for _ in range(calls):
        work()
    return _between(clock, start, clock.mark()) / calls


def _between(clock: Clock, start: Mark, end: Mark) -> float:
    while (seconds := clock.seconds(start, end)) is None:
        time.sleep(1e-4)
    return seconds


def _empty_wait(clock: Clock) -> float:
    """What the meter sees of a wait for an event that has happened already: median seconds."""
    done = threading.Event()
    done.set()

    def wait() -> float:
        start = clock.mark()
        done.wait()
        return _between(clock, start, clock.mark())

    return statistics.median(wait() for _ in range(101))
