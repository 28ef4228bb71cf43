"""Hands rectangles and causal squares to cuDNN or flash attention through torch, and all else to another kernel.

In: a block and its runs, as for every kernel. Out: the same state and gradients. Torch's ops return the log-sum-exp and
take a given one in their backward, so they can compute a block of a ring (torch 2.15: flash gives it as [B, H, Q],
cuDNN as [B, H, Q, 1]; both take fewer key heads than query heads as they are, so no key is repeated in memory; without
dropout neither reads its random state).

They round what they return to half precision, and a ring would sum such partial results once a step: its error would
grow with the number of ranks (ring-flash-attention#42). So by default a run is theirs only where nothing is summed:
its rows see no other keys, in this block or another, and in the backward pass no other run reads its keys. Of a ring
that holds of one rank alone, and a carry that already holds keys fails. `rounding_partials=True` lets every step's
runs go there, and each then adds an error of up to 2^-9 (bf16) of its share of o, dq, dk and dv: with 512 random keys
that come in 8 and 16 blocks, 2.3e-3 and 3.1e-3 of the largest o, where the carried state has 4e-7.

Flash's backward keeps dk and dv of every query head until it sums the groups: 2 * B * K * H * D half-precision numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Kernel, Saved
from ring_worker.attention.layout import Range
from ring_worker.attention.schedule import Run

HALF = (torch.bfloat16, torch.float16)
LEAST_TOKENS = 128  # rows and keys of a run: below, the launch of its own that it would need costs more than it saves


@dataclass(frozen=True, slots=True)
class Piece:
    """q [B, H, Q, D] over k [B, G, K, D] and v [B, G, K, E]: all pairs or, with Q = K, key j <= row i."""

    q: Tensor
    k: Tensor
    v: Tensor
    causal: bool
    scale: float


@dataclass(frozen=True, slots=True)
class Done:
    """Of a piece's rows over all keys of the sequence: o and do [B, H, Q, E] in q's dtype, lse [B, H, Q] in fp32."""

    o: Tensor
    do: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Backend:
    """A library's kernel. `forward` gives (o in q's dtype, lse [B, H, Q]), `backward` (dq, dk, dv) in q's dtype.

    `why_not(device, dtype, D, E)`: what keeps it from these, None for nothing.
    """

    forward: Callable[[Piece], tuple[Tensor, Tensor]]
    backward: Callable[[Piece, Done], tuple[Tensor, Tensor, Tensor]]
    why_not: Callable[[torch.device, torch.dtype, int, int], str | None]


def _cudnn_forward(x: Piece) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        x.q, x.k, x.v, None, True, 0.0, x.causal, False, scale=x.scale
    )
    return o, lse.squeeze(-1)


def _cudnn_backward(x: Piece, done: Done) -> tuple[Tensor, Tensor, Tensor]:
    unread = torch.empty((), dtype=torch.long, device=x.q.device)
    dq, dk, dv = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        *(done.do, x.q, x.k, x.v, done.o, done.lse[..., None]),
        *(unread, unread, None, None, None),
        *(x.q.shape[2], x.k.shape[2], 0.0, x.causal),
        scale=x.scale,
    )
    return dq, dk, dv


def _flash_forward(x: Piece) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(x.q, x.k, x.v, 0.0, x.causal, False, scale=x.scale)
    return o, lse


def _flash_backward(x: Piece, done: Done) -> tuple[Tensor, Tensor, Tensor]:
    unread = torch.empty(2, dtype=torch.uint64, device=x.q.device)
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        *(done.do, x.q, x.k, x.v, done.o, done.lse),
        *(None, None, x.q.shape[2], x.k.shape[2], 0.0, x.causal, unread, unread[0]),
        scale=x.scale,
    )
    return dq, dk, dv


def _torch_has_no(op: str) -> bool:
    return not (hasattr(torch.ops.aten, op) and hasattr(torch.ops.aten, f"{op}_backward"))


def _cudnn_why_not(device: torch.device, dtype: torch.dtype, head_size: int, value_size: int) -> str | None:
    if _torch_has_no("_scaled_dot_product_cudnn_attention"):
        return f"torch {torch.__version__} has no cuDNN attention"
    return _common_why_not(device, dtype) or _torch_why_not("cudnn", device, dtype, head_size, value_size)


def _flash_why_not(device: torch.device, dtype: torch.dtype, head_size: int, value_size: int) -> str | None:
    if _torch_has_no("_scaled_dot_product_flash_attention"):
        return f"torch {torch.__version__} has no flash attention"
    if head_size % 8 or head_size != value_size:
        return f"flash needs one head size, a multiple of 8, not {head_size} and {value_size}"
    return _common_why_not(device, dtype) or _torch_why_not("flash", device, dtype, head_size, value_size)


def _common_why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" or torch.version.hip:
        return f"runs on NVIDIA GPUs, not on {device.type if device.type != 'cuda' else 'ROCm'}"
    if dtype not in HALF:
        return f"computes bf16 and fp16, not {dtype}"
    if torch.are_deterministic_algorithms_enabled():
        return "its backward pass gives other bits on every run, and deterministic algorithms are asked for"
    return None


@lru_cache(maxsize=64)
def _torch_why_not(
    backend: str, device: torch.device, dtype: torch.dtype, head_size: int, value_size: int
) -> str | None:
    """Torch's own rule for a grouped causal square with gradients: it knows the GPU and the library's version."""
    q, k, v = (
        torch.empty(1, heads, LEAST_TOKENS, size, device=device, dtype=dtype, requires_grad=True)
        for heads, size in ((2, head_size), (1, head_size), (1, value_size))
    )
    cuda = torch.backends.cuda
    can = cuda.can_use_cudnn_attention if backend == "cudnn" else cuda.can_use_flash_attention
    with torch.cuda.device(device), torch.enable_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if can(cuda.SDPAParams(q, k, v, None, 0.0, True, True), debug=True):
            return None
    return str(said[-1].message).splitlines()[0] if said else "torch refuses it, without a reason"


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "cudnn": Backend(_cudnn_forward, _cudnn_backward, _cudnn_why_not),
        "flash": Backend(_flash_forward, _flash_backward, _flash_why_not),
    }
)


def available(device: torch.device, dtype: torch.dtype, head_size: int, value_size: int) -> tuple[str, ...]:
    """The backends that compute these here. Costs a look at a cache after the first time."""
    return tuple(name for name, b in BACKENDS.items() if b.why_not(device, dtype, head_size, value_size) is None)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a backend: these query rows over these keys."""

    rows: Range
    keys: Range
    causal: bool

    def size(self) -> int:
        return min(self.rows.size, self.keys.size)


class LibraryKernel:
    """See `Kernel`, and above for which runs go to `backend`; all others go to `fallback`.

    `least`: rows and keys of the smallest run that it takes. Raises ValueError for a backend that is not in `backends`.
    Without `rounding_partials` a carry that already holds keys is a RuntimeError, on a GPU when it next waits.
    """

    def __init__(
        self,
        backend: str,
        fallback: Kernel,
        *,
        rounding_partials: bool = False,
        least: int = LEAST_TOKENS,
        backends: Mapping[str, Backend] = BACKENDS,
    ) -> None:
        if backend not in backends:
            raise ValueError(f"library kernel: backend {backend!r} is not one of {', '.join(backends)}")
        self.name = f"{backend}, {fallback.name}"
        self._backend, self._fallback = backends[backend], fallback
        self._rounding, self._least = rounding_partials, least

    def forward(self, q_BHQD: Tensor, block: Block, carry: Carry) -> None:
        calls, rest = self._divide(q_BHQD, block, apart=False)
        for call in calls:
            rows = slice(*call.rows)
            if not self._rounding:
                torch._assert_async((carry.m[:, :, rows] == -torch.inf).all(), _HOLDS_KEYS)
            o, lse = self._backend.forward(_piece(q_BHQD, block, call))
            carry.absorb(rows.start, rows.stop, o, lse)
        if rest:
            self._fallback.forward(q_BHQD, replace(block, runs=rest), carry)

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        if saved.o is None:  # the queries have travelled; these kernels make delta of the output themselves
            return self._fallback.backward(saved, block, gradients)
        calls, rest = self._divide(saved.q, block, apart=True)
        for call in calls:
            rows, keys = slice(*call.rows), slice(*call.keys)
            o, do = (_read(x[:, :, rows]) for x in (saved.o, saved.do))
            done = Done(o, do, saved.lse[:, :, rows].contiguous())
            dq, dk, dv = self._backend.backward(_piece(saved.q, block, call), done)
            gradients.dq[:, :, rows] += dq
            gradients.dk[:, :, keys] += dk
            gradients.dv[:, :, keys] += dv
        if rest:
            self._fallback.backward(saved, replace(block, runs=rest), gradients)
        return None

    def _divide(self, q: Tensor, block: Block, apart: bool) -> tuple[tuple[Call, ...], tuple[Run, ...]]:
        sizes = block.k.shape[-1], block.v.shape[-1]
        if block.softcap is not None or self._backend.why_not(q.device, q.dtype, *sizes):
            return (), tuple(block.runs)
        return divide(tuple(block.runs), self._least, self._rounding, apart)


_HOLDS_KEYS = (
    "library kernel: the carry already holds keys, and a further block would be rounded before it is added: use the "
    "fallback kernel for a ring of more than one step, or rounding_partials=True to accept the error"
)


@lru_cache(maxsize=256)
def divide(runs: tuple[Run, ...], least: int, rounding: bool, apart: bool) -> tuple[tuple[Call, ...], tuple[Run, ...]]:
    """(calls of the backend, runs of the fallback). The same for every layer with this mask, hence cached.

    `rounding`: partial results may be rounded. `apart`: without that, only runs whose keys no other run reads.
    """
    shared = _share_keys(runs) if apart else set()
    calls: list[Call] = []
    rest: list[Run] = []
    for run in runs:
        found = _calls(run)
        summed = len(found) > 1 or run in shared
        if found and min(call.size() for call in found) >= least and (rounding or not summed):
            calls += found
        else:
            rest.append(run)
    return tuple(calls), tuple(rest)


def _calls(run: Run) -> tuple[Call, ...]:
    """A rectangle; a causal square and the rectangle before it, if any; nothing for a band."""
    rows = Range(run.start, run.stop)
    if (run.lo_step, run.hi_step) == (0, 0):
        return (Call(rows, Range(run.lo, run.hi), causal=False),)
    if (run.lo_step, run.hi_step) != (0, 1):
        return ()
    corner = run.hi - 1
    square = Call(rows, Range(corner, corner + run.rows), causal=True)
    return (Call(rows, Range(run.lo, corner), causal=False), square) if corner > run.lo else (square,)


def _share_keys(runs: Sequence[Run]) -> set[Run]:
    """The runs that read a key which another run reads, too."""
    ordered = sorted(runs, key=lambda run: run.keys)
    shared: set[Run] = set()
    widest: Run | None = None
    for run in ordered:
        if widest and run.keys.start < widest.keys.stop:
            shared |= {run, widest}
        if widest is None or run.keys.stop > widest.keys.stop:
            widest = run
    return shared


def _piece(q: Tensor, block: Block, call: Call) -> Piece:
    rows, keys = slice(*call.rows), slice(*call.keys)
    q, k, v = (_read(x) for x in (q[:, :, rows], block.k[:, :, keys], block.v[:, :, keys]))
    return Piece(q, k, v, call.causal, block.scale)


def _read(x: Tensor) -> Tensor:
    """Strides as they are; only the head dim must be contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()
