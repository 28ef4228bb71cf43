"""What every attention kernel does, so that the ring need not know which one it has.

A kernel goes on with an online softmax: it takes the carried state of the query rows and returns it with more keys in
it. The state is fp32 (fp64 for fp64 inputs) and is never rounded between blocks, so the error does not grow with the
number of blocks. Dims: B batch, H query heads, G key heads (H a multiple of G), Q queries, K keys, D head size of
queries and keys, E head size of values (mostly D; 128 beside 192 in latent attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ring_worker.attention.schedule import Run


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 inputs carry fp64, all others fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, slots=True)
class Carry:
    """Online softmax over the keys so far: `m` row maximum of s, `l` sum of exp(s - m), `acc` sum of exp(s - m) v.

    `acc` [B, H, Q, E], `m` and `l` [B, H, Q]. A row without keys has m = -inf, l = 0, acc = 0. Kernels update in place.
    """

    acc: Tensor
    m: Tensor
    l: Tensor  # noqa: E741  the name that the literature gives it

    @classmethod
    def empty(cls, q_BHQD: Tensor, value_size: int | None = None) -> Carry:
        """No keys yet. `value_size` E; default: that of q."""
        dtype = state_dtype(q_BHQD.dtype)
        rows = q_BHQD.shape[:-1]
        acc = torch.zeros((*rows, value_size or q_BHQD.shape[-1]), dtype=dtype, device=q_BHQD.device)
        m = torch.full(rows, -torch.inf, dtype=dtype, device=q_BHQD.device)
        return cls(acc, m, torch.zeros_like(m))

    def finish(self) -> tuple[Tensor, Tensor]:
        """(output [B, H, Q, E], lse [B, H, Q]) in the state's dtype; rows without keys are 0 and -inf."""
        some = self.l > 0
        lse = torch.where(some, self.m + torch.where(some, self.l, 1).log(), -torch.inf)
        return self.acc / torch.where(some, self.l, 1)[..., None], lse

    def absorb(self, start: int, stop: int, o_BHQD: Tensor, lse_BHQ: Tensor) -> None:
        """Merge finished attention of rows `start .. stop` over further keys. Every such row has a finite lse."""
        acc, m, total = self.acc[:, :, start:stop], self.m[:, :, start:stop], self.l[:, :, start:stop]
        top = torch.maximum(m, lse_BHQ)
        old, new = (m - top).exp_(), (lse_BHQ - top).exp_()
        acc.mul_(old[..., None]).addcmul_(o_BHQD.to(acc.dtype), new[..., None])
        total.mul_(old).add_(new)
        m.copy_(top)


@dataclass(frozen=True, slots=True)
class Block:
    """Keys [B, G, K, D] and values [B, G, K, E], and the runs of query rows that see them, each row in one run at most.

    The score of a pair is s = q k * `scale`, or with a `softcap` c the softer c tanh(s / c), which stays within -c .. c
    (Gemma 2, arXiv 2408.00118).
    """

    k: Tensor
    v: Tensor
    runs: Sequence[Run]
    scale: float
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """What the backward pass needs of the queries, over *all* keys of the sequence.

    `q` [B, H, Q, D]; `o`, `do` [B, H, Q, E]; `lse` and `delta` = rowsum(do * o) [B, H, Q] in the state's dtype. `o` is
    None where the queries have travelled: delta is all that the arithmetic needs of it.
    """

    q: Tensor
    o: Tensor | None
    do: Tensor
    lse: Tensor
    delta: Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """`dq` [B, H, Q, D], `dk` [B, G, K, D], `dv` [B, G, K, E], in the state's dtype. Kernels add to them in place."""

    dq: Tensor
    dk: Tensor
    dv: Tensor


class Kernel(Protocol):
    """Attention over one block of keys, forward and backward. Memory outside the runs is neither read nor written."""

    name: str

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        """Go on with the online softmax over this block's keys, in place."""

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        """Add this block's share of dq, dk and dv."""
