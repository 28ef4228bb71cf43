"""How fast the isolated kernel is here: the yardstick of ring efficiency.

Every rank times its kernel on one unmasked block of its own shapes, all ranks at once and no transfer between them:
what this machine gives a rank when nothing but attention runs. On ranks that share cores (a laptop) that is a share of
the cores, so the efficiency that is measured against it tells of the ring and not of the sharing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker.attention.kernels import choose
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved, state_dtype
from ring_worker.attention.meter import BACKWARD, FORWARD, PRODUCTS, Calibration, Clock
from ring_worker.attention.ring import Ring
from ring_worker.attention.schedule import Run

REPEATS = 5


def calibrate(ring: Ring, q_BHSD: Tensor, k_BGSD: Tensor, group: dist.ProcessGroup | None) -> Calibration:
    """Rates of ring's kernel for these shapes. Every rank of `group` calls it at the same time."""
    kernel = ring.kernel or choose(q_BHSD.device, q_BHSD.dtype)
    batch, heads, rows, size = q_BHSD.shape
    if not rows:
        return Calibration(empty_wait_seconds=_empty_wait())
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
    return Calibration(rates, _empty_wait())


def _seconds(work: Callable[[], None], clock: Clock, group: dist.ProcessGroup | None) -> float:
    """The best of a few, after one to warm up."""
    if group:
        dist.barrier(group)
    best = float("inf")
    for _ in range(REPEATS + 1):
        start = clock.mark()
        work()
        end = clock.mark()
        while (seconds := clock.seconds(start, end)) is None:
            time.sleep(1e-4)
        best = min(best, seconds)
    return best


def _empty_wait() -> float:
    """Seconds that waiting for an event costs that is already set."""
    done = threading.Event()
    done.set()
    start = time.monotonic()
    for _ in range(1000):
        done.wait()
    return (time.monotonic() - start) / 1000
