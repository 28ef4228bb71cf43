"""Errors of outputs and gradients against fp64, by number of ranks, beside torch's kernel over the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.ring.cases import Attend, one_kernel, tensors
from ring_worker.attention import CAUSAL, Layout, loop_attention, virtual_rings

LENGTH = 2048
NAMES = ("o", "dq", "dk", "dv")
RANKS = range(1, 9)


def measure() -> list[dict[str, Any]]:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        given = tensors(LENGTH, dtype)
        exact = _gradients(_exact, [x.double() for x in given])
        sides: list[tuple[str, Attend]] = [("torch", one_kernel(CAUSAL, LENGTH)[1])]
        sides += [(f"ring of {n}", _ring_of(n)) for n in RANKS]
        for name, attend in track(sides, f"errors, {dtype}", transient=True):
            found = _gradients(attend, given)
            errors = {n: float((a.double() - b).abs().max()) for n, a, b in zip(NAMES, found, exact, strict=True)}
            results.append({"dtype": str(dtype).removeprefix("torch."), "side": name, **errors})
    return results


def _ring_of(ranks: int) -> Attend:
    return partial(loop_attention, rings=virtual_rings(Layout("zigzag", LENGTH, ranks)))


def _exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    return ((q @ k.mT) * q.shape[-1] ** -0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v


def _gradients(attend: Callable[..., Tensor], given: list[Tensor]) -> list[Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in given[:3])
    o = attend(q, k, v)
    return [o.detach(), *torch.autograd.grad(o, (q, k, v), given[3])]


def show(results: list[dict[str, Any]]) -> Table:
    table = Table(title=f"largest error against fp64, causal zigzag, {LENGTH} tokens")
    for column in ("dtype", "side", *NAMES):
        table.add_column(column, justify="left" if column in ("dtype", "side") else "right")
    for r in results:
        table.add_row(r["dtype"], r["side"], *(f"{r[n]:.2e}" for n in NAMES), end_section=r["side"].endswith("of 8"))
    return table
