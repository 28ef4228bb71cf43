"""Some rows of attention and its gradients, dense in fp64: what a kernel's error is measured against.

A dense result of 256K tokens does not fit anywhere, but rows of it do. The upstream gradient is zero outside the
sampled rows, so that dk and dv of *all* keys come from those rows alone, and are checked exactly, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.candidates import Attention

ROWS = 32


@dataclass(frozen=True, slots=True)
class Inputs:
    """q and do [B, H, S, D], k and v [B, G, S, D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor


@dataclass(frozen=True, slots=True)
class Truth:
    """fp64: `o` [B, H, R, D] of `rows` [R], and the gradients for a `do` that is zero elsewhere.

    `gradients`: "dq" [B, H, R, D], "dk" and "dv" [B, G, S, D]; empty where only the forward pass is checked.
    """

    rows: Tensor
    o: Tensor
    gradients: dict[str, Tensor]


def sampled(length: int, device: torch.device) -> Tensor:
    """Ascending: the first two rows, the middle one, the last one, and random ones."""
    draw = torch.Generator().manual_seed(0)
    chosen = {0, min(1, length - 1), length // 2, length - 1}
    chosen |= set(torch.randint(length, (max(0, ROWS - len(chosen)),), generator=draw).tolist())
    return torch.tensor(sorted(chosen), device=device)


def truth_of(x: Inputs, causal: bool, backward: bool) -> Truth:
    rows = sampled(x.q.shape[2], x.q.device)
    hidden = torch.arange(x.k.shape[2], device=rows.device) > rows[:, None] if causal else None
    batch, heads, _, size = x.q.shape
    o = torch.empty(batch, heads, len(rows), size, dtype=torch.float64, device=x.q.device)
    gradients = _space(x, o) if backward else {}
    for b, g, own in _groups(x):
        q, do, k, v = (t.double() for t in (x.q[b, own, rows], x.do[b, own, rows], x.k[b, g], x.v[b, g]))
        p = _probabilities(q, k, hidden)
        o[b, own] = p @ v
        if backward:
            ds = p * (do @ v.mT - (do * o[b, own]).sum(-1, keepdim=True)) * size**-0.5
            gradients["dq"][b, own] = ds @ k
            gradients["dk"][b, g], gradients["dv"][b, g] = (ds.mT @ q).sum(0), (p.mT @ do).sum(0)
    return Truth(rows, o, gradients)


def _space(x: Inputs, o: Tensor) -> dict[str, Tensor]:
    keys = {name: torch.empty_like(t, dtype=torch.float64) for name, t in (("dk", x.k), ("dv", x.v))}
    return {"dq": torch.empty_like(o), **keys}


def _groups(x: Inputs) -> Iterator[tuple[int, int, slice]]:
    """(batch, key head, its query heads)."""
    group = x.q.shape[1] // x.k.shape[1]
    for b in range(x.k.shape[0]):
        for g in range(x.k.shape[1]):
            yield b, g, slice(g * group, (g + 1) * group)


def _probabilities(q: Tensor, k: Tensor, hidden: Tensor | None) -> Tensor:
    """Of query heads [h, R, D] that share keys [S, D]: [h, R, S]."""
    s = (q @ k.mT) * q.shape[-1] ** -0.5
    masked = s if hidden is None else s.masked_fill_(hidden, -torch.inf)
    return torch.softmax(masked, -1)


def errors(attend: Attention, x: Inputs, truth: Truth) -> dict[str, dict[str, float]]:
    """name -> {"absolute": largest difference, "relative": that over the largest true value}."""
    inputs = [t.detach().requires_grad_(bool(truth.gradients)) for t in (x.q, x.k, x.v)]
    o = attend(*inputs)
    found = {"o": _error(o.detach()[:, :, truth.rows], truth.o)}
    if not truth.gradients:
        return found
    do = torch.zeros_like(x.do)
    do[:, :, truth.rows] = x.do[:, :, truth.rows]
    dq, dk, dv = torch.autograd.grad(o, inputs, do)
    taken = {"dq": dq[:, :, truth.rows], "dk": dk, "dv": dv}
    return found | {name: _error(taken[name], expected) for name, expected in truth.gradients.items()}


def _error(found: Tensor, expected: Tensor) -> dict[str, float]:
    absolute = float((found.double() - expected).abs().max())
    return {"absolute": absolute, "relative": absolute / float(expected.abs().max())}
