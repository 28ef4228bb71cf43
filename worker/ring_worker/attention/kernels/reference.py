"""The plain blockwise twin: online softmax and its gradients in torch, tile by tile, in fp32 or fp64.

Slow and short on purpose: the other kernels are compared with it, and it computes what they do not (fp64).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved, state_dtype
from ring_worker.attention.layout import Range
from ring_worker.attention.schedule import Run

TILE_ROWS = 256


class ReferenceKernel:
    """See `Kernel`. Holds one tile of scores at a time: TILE_ROWS x the keys that those rows see."""

    name = "reference"

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        for run in tiles(block.runs):
            q, k, v = grouped(q_BHQD, block.k, run), keys(block.k, run.keys), keys(block.v, run.keys)
            s = scores(q, k, run, block)
            m, total, acc = (rows_of(t, run, block.k) for t in (carry.m, carry.l, carry.acc))
            top = torch.maximum(m, s.amax(-1))
            old, p = (m - top).exp(), (s - top[..., None]).exp()
            total.copy_(total * old + p.sum(-1))
            acc.copy_(acc * old[..., None] + p @ v)
            m.copy_(top)

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        for run in tiles(block.runs):
            q, do = grouped(saved.q, block.k, run), grouped(saved.do, block.k, run)
            k, v = keys(block.k, run.keys), keys(block.v, run.keys)
            lse, delta = (rows_of(t, run, block.k) for t in (saved.lse, saved.delta))
            s = scores(q, k, run, block)
            p = (s - lse[..., None]).exp()
            ds = p * (do @ v.mT - delta[..., None]) * block.scale
            if block.softcap:
                ds *= 1 - (s.masked_fill(s.isinf(), 0) / block.softcap).square()
            rows_of(gradients.dq, run, block.k).add_(ds @ k)
            seen = slice(*run.keys)
            gradients.dk[:, :, seen] += (ds.mT @ q).sum(2)
            gradients.dv[:, :, seen] += (p.mT @ do).sum(2)


def tiles(runs: Iterable[Run], rows: int = TILE_ROWS) -> list[Run]:
    """Cut runs to at most `rows` rows each."""
    return [part for run in runs for part in _cut(run, rows)]


def _cut(run: Run, rows: int) -> list[Run]:
    return [
        Run(
            start=start,
            stop=min(start + rows, run.stop),
            lo=run.lo + (start - run.start) * run.lo_step,
            hi=run.hi + (start - run.start) * run.hi_step,
            lo_step=run.lo_step,
            hi_step=run.hi_step,
        )
        for start in range(run.start, run.stop, rows)
    ]


def grouped(x_BHQD: Tensor, k_BGKD: Tensor, run: Run) -> Tensor:
    """The run's rows as [B, G, H/G, rows, D] in the state's dtype."""
    return rows_of(x_BHQD, run, k_BGKD).to(state_dtype(x_BHQD.dtype))


def rows_of(x: Tensor, run: Run, k_BGKD: Tensor) -> Tensor:
    """A view of the run's rows of [B, H, Q, ...] as [B, G, H/G, rows, ...]."""
    groups = k_BGKD.shape[1]
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:]).narrow(3, run.start, run.rows)


def keys(x_BGKD: Tensor, seen: Range) -> Tensor:
    """The seen keys as [B, G, 1, keys, D] in the state's dtype."""
    return x_BGKD[:, :, None, seen.start : seen.stop].to(state_dtype(x_BGKD.dtype))


def scores(q: Tensor, k: Tensor, run: Run, block: Block) -> Tensor:
    """Scores of a tile as in `Block`, -inf where the run masks."""
    s = (q @ k.mT) * block.scale
    if block.softcap:
        s = (s / block.softcap).tanh_().mul_(block.softcap)
    if run.lo_step or run.hi_step:
        s = s.masked_fill(~visible(run, q.device), -torch.inf)
    return s


def visible(run: Run, device: torch.device) -> Tensor:
    """bool [rows, keys]: which of `run.keys` each row of the run sees."""
    row = torch.arange(run.rows, device=device)[:, None]
    key = torch.arange(run.keys.start, run.keys.stop, device=device)[None, :]
    return (key >= run.lo + row * run.lo_step) & (key < run.hi + row * run.hi_step)
