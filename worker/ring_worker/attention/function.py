"""`ring_attention` and `loop_attention`: differentiable functions of q, k and v around the passes of the ring.

Outside the passes lies what belongs to no block: the learnable sink of a head, one more logit in the denominator that
is added once, at the end; delta, computed once; and the output that activation checkpointing may keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ring_worker.attention.heads import gather_heads, scatter_heads
from ring_worker.attention.keep import recall, remember
from ring_worker.attention.kernels.interface import Saved, state_dtype
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL, Mask
from ring_worker.attention.meter import Meter
from ring_worker.attention.passes import Call, backward_pass, forward_pass
from ring_worker.attention.ring import Ring
from ring_worker.attention.shards import shard, unshard
from ring_worker.attention.transport.loop import LoopTransport, lockstep, straight


@torch.compiler.disable  # type: ignore[untyped-decorator]
def ring_attention(
    q_BHSD: Tensor,
    k_BGSD: Tensor,
    v_BGSE: Tensor,
    ring: Ring,
    mask: Mask = CAUSAL,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v of this rank's queries over the whole sequence; differentiable.

    Shapes: q [B, H, S, D], k [B, G, S, D], v [B, G, S, E], H a multiple of G, S = `ring.tokens`, the tokens that
    `shard` gives this rank. fp32, bf16, fp16 or fp64, all three alike. Every rank of the ring calls it, in the same
    order, with the same mask. `scale` defaults to D ** -0.5. `softcap` c bends scores to c tanh(s / c). `sinks` [H]:
    a logit a head that takes part in the softmax and has no value; its gradient is of this rank's queries alone.
    Returns [B, H, S, E] in q's dtype. A query that sees no key gives 0.

    Raises ValueError for shapes that do not fit, TransportError when a peer is gone. `torch.compile` breaks the graph
    here and compiles what is around; with fullgraph=True it refuses.
    """
    _check(q_BHSD, k_BGSD, v_BGSE, ring.tokens, f"rank {ring.rank}")
    call = _call(ring, mask, q_BHSD, scale, softcap)
    if ring.heads.size == 1:
        result: Tensor = _Attention.apply([call], _checked_sinks(sinks, q_BHSD), q_BHSD, k_BGSD, v_BGSE)
        return result
    sinks = _checked_sinks(sinks, q_BHSD)
    q, k, v = (scatter_heads(x, ring, q_BHSD.shape[1]) for x in (q_BHSD, k_BGSD, v_BGSE))
    if sinks is not None:
        sinks = sinks.tensor_split(ring.heads.size)[ring.heads.rank]
    return gather_heads(_Attention.apply([call], sinks, q, k, v), ring)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def loop_attention(
    q_BHSD: Tensor,
    k_BGSD: Tensor,
    v_BGSE: Tensor,
    rings: Sequence[Ring],
    mask: Mask = CAUSAL,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The same over N virtual ranks in this process: whole sequences [B, H, S, D] in, [B, H, S, E] out.

    `rings`: from `virtual_rings`. Every virtual rank runs the code of a real one, in turn, on the tensors' device.
    """
    layout = rings[0].layout
    _check(q_BHSD, k_BGSD, v_BGSE, layout.length, f"the loop of {layout.ranks} ranks")
    calls = [_call(ring, mask, q_BHSD, scale, softcap) for ring in rings]
    shards = [shard(x, layout, ring.rank, dim=2) for ring in rings for x in (q_BHSD, k_BGSD, v_BGSE)]
    outputs = _Attention.apply(calls, _checked_sinks(sinks, q_BHSD), *shards)
    return unshard(outputs if len(rings) > 1 else [outputs], layout, dim=2)


def _call(ring: Ring, mask: Mask, q: Tensor, scale: float | None, softcap: float | None) -> Call:
    if softcap is not None and softcap <= 0:
        raise ValueError(f"ring attention: softcap {softcap} must be above 0, or None for none")
    return Call(ring, mask, q.shape[-1] ** -0.5 if scale is None else scale, softcap)


def _check(q: Tensor, k: Tensor, v: Tensor, tokens: int, owner: str) -> None:
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(f"ring attention: k {list(k.shape)} and v {list(v.shape)} differ in B, G or S")
    if q.shape[2] != tokens or k.shape[2] != tokens:
        raise ValueError(f"ring attention: {owner} owns {tokens} tokens, but q has {q.shape[2]}, k {k.shape[2]}")
    if q.shape[1] % k.shape[1] or q.shape[::3] != k.shape[::3]:
        raise ValueError(
            f"ring attention: q {list(q.shape)} does not fit k {list(k.shape)} (B, D equal, H multiple of G)"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"ring attention: q is {q.dtype}, k {k.dtype}, v {v.dtype}; they must be alike")


def _checked_sinks(sinks: Tensor | None, q: Tensor) -> Tensor | None:
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"ring attention: sinks {list(sinks.shape)}, but q has {q.shape[1]} heads: one number a head")
    return sinks


class _Attention(torch.autograd.Function):
    """Of the ranks of this process: one, or all virtual ones. Tensors: q, k, v of each rank in turn."""

    @staticmethod
    def forward(ctx: Any, calls: list[Call], sinks: Tensor | None, *tensors: Tensor) -> Any:
        ranks = [tensors[i : i + 3] for i in range(0, len(tensors), 3)]
        with torch.autocast(tensors[0].device.type, enabled=False):  # it would round the fp32 state of torch's kernels
            outputs, lses = zip(*_outputs(calls, ranks, sinks), strict=True)
        ctx.save_for_backward(sinks, *tensors, *outputs, *lses)
        ctx.calls = calls
        return outputs if len(outputs) > 1 else outputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sinks, *rest = ctx.saved_tensors
        n = len(ctx.calls)
        tensors, outputs, lses = rest[: 3 * n], rest[3 * n : 4 * n], rest[4 * n :]
        saved = [
            Saved(q, o, do, lse, (do.to(lse.dtype) * o.to(lse.dtype)).sum(-1))
            for q, o, do, lse in zip(tensors[::3], outputs, grads, lses, strict=True)
        ]
        passes = [backward_pass(*parts) for parts in zip(ctx.calls, saved, tensors[1::3], tensors[2::3], strict=True)]
        found = [g for each in lockstep(passes) for g in (each.dq, each.dk, each.dv)]
        rounded = (g.to(x.dtype) for g, x in zip(found, tensors, strict=True))
        return None, _sink_gradient(sinks, saved), *rounded


Output = tuple[Tensor, Tensor]


def _outputs(calls: list[Call], ranks: Sequence[Any], sinks: Tensor | None) -> list[Output]:
    """(o in q's dtype, lse) of every rank, sinks included; what checkpointing has kept is not computed again."""
    if len(calls) == 1:
        return [_output(calls[0], ranks[0], sinks)]
    passes = [forward_pass(call, *qkv) for call, qkv in zip(calls, ranks, strict=True)]
    return [_finished(*result, sinks, qkv[0]) for result, qkv in zip(lockstep(passes), ranks, strict=True)]


def _output(call: Call, qkv: Sequence[Tensor], sinks: Tensor | None) -> Output:
    (q, k, v), kept = qkv, recall()
    if kept is None:
        return remember(_finished(*straight(forward_pass(call, q, k, v)), sinks, q), call.ring)
    if not kept.missing:
        return kept.o, kept.lse
    early = q[:, :, : kept.missing]
    o, lse = _finished(*straight(forward_pass(replace(call, early=True), early, k, v)), sinks, q)
    return torch.cat([o, kept.o], dim=2), torch.cat([lse, kept.lse], dim=2)


def _finished(o: Tensor, lse: Tensor, sinks: Tensor | None, q: Tensor) -> Output:
    o, lse = _with_sinks(o, lse, sinks)
    return o.to(q.dtype), lse


def _with_sinks(o: Tensor, lse: Tensor, sinks: Tensor | None) -> Output:
    """One more logit a head in the denominator, without a value."""
    if sinks is None:
        return o, lse
    whole = torch.logaddexp(lse, sinks.to(lse.dtype)[:, None].expand_as(lse))
    return o * (lse - whole).exp()[..., None], whole


def _sink_gradient(sinks: Tensor | None, saved: Sequence[Saved]) -> Tensor | None:
    """d sink = sum over queries of p (0 - delta), p the sink's share of the softmax."""
    if sinks is None:
        return None
    total = torch.zeros_like(sinks, dtype=state_dtype(sinks.dtype))
    for each in saved:
        total -= ((sinks.to(each.lse.dtype)[:, None] - each.lse).exp() * each.delta).sum((0, 2))
    return total.to(sinks.dtype)


def virtual_rings(layout: Layout, **options: Any) -> list[Ring]:
    """A ring of N virtual ranks in this process, for `loop_attention`. `options` as those of `Ring`."""
    if layout.ranks == 1:
        return [Ring(layout, meter=Meter(paused=True), **options)]
    ends = LoopTransport.make(layout.ranks)
    return [Ring(layout, transport, meter=Meter(paused=True), **options) for transport in ends]
