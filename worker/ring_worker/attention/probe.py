"""A sample of the ring's output, recomputed densely while a training runs: is what it trains on still attention?

In: what a rank gave to ring attention and what it got back. Out: how many of its sampled rows differ from dense
attention by more than rounding. A wrong kernel, a lost message or a driver's new bug can leave a loss that looks right;
so rows drawn from the whole sequence go to every rank, each attends densely over its own keys, and the owner merges the
parts. On purpose nothing is shared with the ring but the mask's terms and the transport: no schedule, no runs, no
kernel, fp64 throughout. A row at a time, gathering just the keys that it sees: O(S/N) memory, and a NaN that is masked
out cannot leak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ring_worker.attention.heads import scatter_heads
from ring_worker.attention.masks import Mask, Positions
from ring_worker.attention.passes import Call, Pass
from ring_worker.attention.ring import Ring
from ring_worker.attention.transport import KEYS, Message
from ring_worker.attention.transport.loop import straight

TOLERANCES = {
    torch.float64: 2.0**-40,
    torch.float32: 2.0**-13,
    torch.float16: 2.0**-9,
    torch.bfloat16: 2.0**-6,
}
"""Relative, see `Probed.worst`. Half precision: twice the distance of neighbouring numbers, since both the softmax's
weights and the output are rounded to it. fp32 and fp64: room for a score's rounding, which grows with its size, and for
an exponential that is approximated. A key of n that is dropped changes a row by about n ** -0.5."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Of the sampled rows that this rank owns: how many, and in how many any head differs by more than the tolerance.

    `worst`: the largest |found - right| / (|right| + spread) of a row and head, norms over the value's dims; the spread
    is the norm that values of random direction would sum to under the same weights. inf where only one of them is NaN.
    """

    rows: int
    mismatches: int
    worst: float


@torch.no_grad()
def probe(
    q_BHSD: Tensor,
    k_BGSD: Tensor,
    v_BGSE: Tensor,
    o_BHSE: Tensor,
    ring: Ring,
    mask: Mask,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    rows: int = 4,
    seed: int = 0,
) -> Probed:
    """Compare `rows` rows of the whole sequence, drawn from `seed`, with dense attention in fp64.

    All tensors and options as `ring_attention` took them and gave them back. Every rank of the ring calls it, with the
    same mask, rows and seed. The rows of all ranks add up to `rows` (or the sequence's length). Where heads are split
    (Ulysses), each member compares its part of the heads.
    """
    if ring.heads.size > 1:
        heads = q_BHSD.shape[1]
        q_BHSD, k_BGSD, v_BGSE, o_BHSE = (scatter_heads(x, ring, heads) for x in (q_BHSD, k_BGSD, v_BGSE, o_BHSE))
        sinks = sinks if sinks is None else sinks.tensor_split(ring.heads.size)[ring.heads.rank]
    call = Call(ring, mask, q_BHSD.shape[-1] ** -0.5 if scale is None else scale, softcap)
    return straight(probe_pass(call, (q_BHSD, k_BGSD, v_BGSE, o_BHSE), sinks, drawn(ring.layout.length, rows, seed)))


def drawn(length: int, rows: int, seed: int) -> Positions:
    """Positions of a sample, ascending, without repetition."""
    return np.sort(np.random.default_rng(seed).choice(length, size=min(rows, length), replace=False))


def probe_pass(call: Call, tensors: Sequence[Tensor], sinks: Tensor | None, sample: Positions) -> Pass[Probed]:
    """The probe as a pass that stops before and after its waits. `tensors` q, k, v, o of this rank."""
    (q, k, v, o), ring = tensors, call.ring
    owned = [np.flatnonzero(ring.layout.owners(sample) == rank) for rank in range(ring.layout.ranks)]
    places = torch.from_numpy(np.searchsorted(ring.layout.positions(ring.rank), sample[owned[ring.rank]])).to(q.device)
    mine = q[:, :, places].permute(2, 0, 1, 3).contiguous()
    queries = [mine.new_empty((len(rows), *mine.shape[1:])) for rows in owned]
    yield from _everybody(ring, [mine] * len(owned), queries)
    local = _Local(call, k, v)
    parts = [local.rows(q, sample[rows]) for q, rows in zip(queries, owned, strict=True)]
    found = [torch.empty_like(parts[ring.rank]) for _ in owned]
    yield from _everybody(ring, parts, found)
    return _compared(o[:, :, places].permute(2, 0, 1, 3), _merged(torch.stack(found), sinks))


def _everybody(ring: Ring, sent: Sequence[Tensor], received: list[Tensor]) -> Pass[None]:
    """Part i goes to rank i, and what rank i has for this one comes into `received[i]`; empty ones do not travel."""
    others = [rank for rank in range(len(sent)) if rank != ring.rank]
    sends = [Message(sent[i], i) for i in others if sent[i].numel()]
    receives = [Message(received[i], i) for i in others if received[i].numel()]
    transfer = ring.transport.exchange(KEYS, sends, receives) if sends or receives else None
    yield
    if transfer:
        transfer.wait()
    received[ring.rank] = sent[ring.rank]
    yield


@dataclass(frozen=True, slots=True)
class _Local:
    """Attention over this rank's own keys alone."""

    call: Call
    k: Tensor
    v: Tensor

    def rows(self, q_RBHD: Tensor, positions: Positions) -> Tensor:
        """fp64 [R, B, H, E + 2]: for each row the output, the squared spread, and the log-sum-exp."""
        own, length = self.call.ring.layout.positions(self.call.ring.rank), self.call.ring.layout.length
        terms = self.call.mask.terms(positions, length)
        shape = (*q_RBHD.shape[:3], self.v.shape[-1] + 2)
        found = torch.empty(shape, dtype=torch.float64, device=q_RBHD.device)
        for row, q_BHD in enumerate(q_RBHD):
            sees = np.zeros(len(own), dtype=bool)
            for lo, hi in terms:
                sees |= (own >= lo[row]) & (own < hi[row])
            found[row] = self._row(q_BHD, np.flatnonzero(sees))
        return found

    def _row(self, q_BHD: Tensor, keys: Positions) -> Tensor:
        seen = torch.from_numpy(keys).to(self.k.device)
        k, v = (x[:, :, seen].double() for x in (self.k, self.v))
        q = q_BHD.double().unflatten(1, (k.shape[1], -1))
        s = (q @ k.mT) * self.call.scale
        if self.call.softcap is not None:
            s = self.call.softcap * (s / self.call.softcap).tanh()
        lse = s.logsumexp(-1, keepdim=True)
        p = (s - lse).exp()
        spread = p.square() @ v.square().sum(-1, keepdim=True)
        return torch.cat([p @ v, spread, lse], dim=-1).flatten(1, 2)


def _merged(parts_NRBHX: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """(output [R, B, H, E], spread [R, B, H]) of the parts of all ranks; rows without keys are 0."""
    o, spread, lse = parts_NRBHX.split([parts_NRBHX.shape[-1] - 2, 1, 1], dim=-1)
    whole = lse.logsumexp(0)
    if sinks is not None:
        whole = torch.logaddexp(whole, sinks.double()[:, None].expand_as(whole))
    share = torch.where(lse == -torch.inf, 0, (lse - whole).exp())
    return (share * o).sum(0), (share.square() * spread).sum(0).sqrt().squeeze(-1)


def _compared(found_RBHE: Tensor, right: tuple[Tensor, Tensor]) -> Probed:
    o, spread = right
    found = found_RBHE.double()
    strange = (found.isnan() != o.isnan()).any(-1) | (found.isinf() != o.isinf()).any(-1)
    off = torch.where(found.isfinite() & o.isfinite(), found - o, 0).norm(dim=-1)
    size = o.nan_to_num(0, 0, 0).norm(dim=-1) + spread.nan_to_num(0)
    relative = (off / size).nan_to_num(0, torch.inf)  # 0 / 0: no key is seen
    relative = relative.masked_fill(strange, math.inf)
    wrong = (relative > TOLERANCES[found_RBHE.dtype]).flatten(1).any(1)
    return Probed(len(wrong), int(wrong.sum()), float(relative.max()) if relative.numel() else 0.0)
