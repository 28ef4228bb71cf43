"""Which of several exact kernels is the fastest for a shape: measured once, and remembered.

Which one wins depends on the GPU, the head size and the versions of three libraries, and changes with each of them, so
no table is kept. A candidate is timed forward and backward on random tensors of the shape, cut to MEASURED_TOKENS: from
there on the rates no longer change, and the measurement stays small beside a training step.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Kernel, Saved, state_dtype
from ring_worker.attention.schedule import Run

MEASURED_TOKENS = 8192
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """Attention of `rows` queries over `keys` keys: all pairs or, `causal`, a square. Head sizes D and E."""

    batch: int
    heads: int
    key_heads: int
    rows: int
    keys: int
    head_size: int
    value_size: int
    causal: bool

    @classmethod
    def of(cls, q_BHQD: Tensor, k_BGKD: Tensor, v_BGKE: Tensor, causal: bool) -> Shape:
        batch, heads, rows, head_size = q_BHQD.shape
        return cls(batch, heads, k_BGKD.shape[1], rows, k_BGKD.shape[2], head_size, v_BGKE.shape[3], causal)

    def cut(self, tokens: int = MEASURED_TOKENS) -> Shape:
        return replace(self, rows=min(self.rows, tokens), keys=min(self.keys, tokens))

    @property
    def run(self) -> Run:
        return Run(0, self.rows, 0, 1, 0, 1) if self.causal else Run(0, self.rows, 0, self.keys, 0, 0)


def fastest(candidates: Sequence[Kernel], timer: Callable[[Kernel], float]) -> Kernel:
    """The candidate with the fewest seconds, of equals the earlier one.

    The first must run; another that fails (no plan for this shape, no memory) is left out with a warning.
    """
    best, least = candidates[0], timer(candidates[0])
    for kernel in candidates[1:]:
        try:
            seconds = timer(kernel)
        except RuntimeError as error:
            warnings.warn(f"attention kernel {kernel.name} is left out: {error}", RuntimeWarning, stacklevel=2)
            continue
        if seconds < least:
            best, least = kernel, seconds
    return best


def seconds_of(kernel: Kernel, shape: Shape, device: torch.device, dtype: torch.dtype) -> float:
    """Median seconds of one forward and one backward pass, after one that warms up."""
    work = _work(kernel, shape, device, dtype)
    work()
    return statistics.median(_timed(work, device) for _ in range(REPEATS))


def _work(kernel: Kernel, shape: Shape, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    draw = torch.Generator(device).manual_seed(0)  # its own: a training's random numbers must not depend on this

    def random(heads: int, tokens: int, size: int) -> Tensor:
        return torch.randn(shape.batch, heads, tokens, size, device=device, dtype=dtype, generator=draw)

    q, do = (random(shape.heads, shape.rows, size) for size in (shape.head_size, shape.value_size))
    k, v = (random(shape.key_heads, shape.keys, size) for size in (shape.head_size, shape.value_size))
    block = Block(k, v, (shape.run,), shape.head_size**-0.5)
    gradients = Gradients(*(torch.zeros_like(x, dtype=state_dtype(dtype)) for x in (q, k, v)))

    def work() -> None:
        carry = Carry.empty(q, shape.value_size)
        kernel.forward(q, block, carry)
        o, lse = carry.finish()
        kernel.backward(Saved(q, o.to(dtype), do, lse, (do * o).sum(-1)), block, gradients)

    return work


def _timed(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
