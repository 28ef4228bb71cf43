"""A Llama-type transformer that does not know how its attention is computed.

In: tokens and their positions, and `attend`, which the caller composes: over a ring, or dense on one device. What the
attention learns (a sink a head) is handed to it, since weights are the model's. Out: the
hidden states after the last norm; the head is left to the loss, which never holds all logits. Nothing here depends on
the order of the tokens: a shard of any layout is a batch of tokens that carry their positions.

Recomputation. `none` keeps what the backward pass needs. `attention` keeps of each layer its input and the attention's
q, k, v and output, and computes the rest again, which is cheap: the dear part, the attention, is not repeated. `output`
does the same and keeps of the attention its output alone; `late` keeps it for the late half of the rank's tokens only
(`ring_worker.attention.keep`). `full` keeps the layer's input alone and repeats the attention too. The attention
communicates, and yet that is safe: every rank builds the same graph whatever its tokens, and torch walks equal graphs
in the same order, so that each rank repeats layer n's forward ring just before layer n's backward ring, from the last
layer to the first.

Under autocast the residual stream has autocast's dtype, as the memory plan counts it; the weights stay fp32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from ring_worker import contract
from ring_worker.attention.keep import keep_output
from ring_worker.layers import FeedForward, RMSNorm
from ring_worker.rope import rope_frequencies, rotate, rotation_tables
from ring_worker.rounding import compute_dtype, sum_dtype

Attend = Callable[[int, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(layer index, q_BHSD, k_BGSD, v_BGSD, all contiguous, the heads' sinks [H] in fp32 or None) -> o_BHSD."""

Tables = tuple[Tensor, Tensor]

RECOMPUTE = ("none", "attention", "output", "late", "full")
_CONTEXTS = {"output": keep_output("all"), "late": keep_output("late"), "full": noop_context_fn}

Contexts = Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]

_T = TypeVar("_T")


class Transformer(nn.Module):
    """Call `initialise`, or load a checkpoint, before use.

    `vocabulary`: tokens there are; embedding and head have `padded_vocabulary` rows. `recompute`: one of `RECOMPUTE`.
    `feed_forward_chunk`: tokens of the feed-forward computed at a time.
    """

    def __init__(self, model: contract.Model, vocabulary: int, recompute: str, feed_forward_chunk: int) -> None:
        super().__init__()
        if recompute not in RECOMPUTE:
            raise ValueError(f"training.recompute: {recompute!r} is none of {', '.join(RECOMPUTE)}")
        self.vocabulary = vocabulary
        self.frequencies, self.rope_scale = rope_frequencies(model.rope, model.head_dim)
        rows = padded_vocabulary(vocabulary)
        self.embed = nn.Embedding(rows, model.hidden)
        self.layers = nn.ModuleList(Block(model, i, recompute, feed_forward_chunk) for i in range(model.layers))
        self.norm = RMSNorm(model.hidden, model.norm_eps)
        self.head = None if model.tie_embeddings else nn.Linear(model.hidden, rows, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[padded vocabulary, hidden]. Rows from `vocabulary` on are no tokens; the loss leaves them out."""
        return self.embed.weight if self.head is None else self.head.weight

    def forward(self, tokens_BS: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states [B, S, hidden] after the last norm. `positions`: int64 [S] or [B, S], in any order."""
        x: Tensor = self.embed(tokens_BS)
        tables = self._tables(positions, sum_dtype(x.dtype))
        x = x.to(compute_dtype(x))
        for layer in self.layers:
            x = layer(x, tables, attend)
        return cast(Tensor, self.norm(x))

    def _tables(self, positions: Tensor, dtype: torch.dtype) -> Tables:
        cos, sin = rotation_tables(self.frequencies, self.rope_scale, positions, dtype)
        return (cos, sin) if positions.dim() == 1 else (cos.unsqueeze(1), sin.unsqueeze(1))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fresh weights: the same bits on every rank and device, whatever the order in which layers are made.

        Each tensor is drawn on the CPU from its own seed, and uniformly, since normal draws differ in their last bit
        between processors. Projections into the residual stream start at zero, so that a block begins as the identity;
        sinks too, as logits of a key at right angles to the query. Other matrices have a bound of 1/sqrt(fan in),
        embeddings a deviation of 1 (0.02 where they are the head too).
        """
        for name, parameter in self.named_parameters():
            kind = name.split(".")[-2]
            if kind.endswith("norm"):
                parameter.fill_(1.0)
            elif kind in ("o", "down") or name.endswith(".sinks"):
                parameter.zero_()
            else:
                self._draw(name, parameter, seed)

    def _draw(self, name: str, parameter: Tensor, seed: int) -> None:
        bound = {"embed": 3**0.5 * (0.02 if self.head is None else 1.0), "head": 3**0.5 * 0.02}
        rows = self.vocabulary if name in ("embed.weight", "head.weight") else parameter.shape[0]
        generator = torch.Generator().manual_seed(_seed_of(seed, name))
        drawn = torch.rand(rows, parameter.shape[1], generator=generator).mul_(2.0).sub_(1.0)
        parameter.zero_()
        parameter[:rows] = drawn.mul_(bound.get(name.split(".")[0], parameter.shape[1] ** -0.5)).to(parameter)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, model: contract.Model, index: int, recompute: str, feed_forward_chunk: int) -> None:
        super().__init__()
        self.index, self.recompute, self.head_dim = index, recompute, model.head_dim
        queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
        self.attention_norm = RMSNorm(model.hidden, model.norm_eps)
        self.q = nn.Linear(model.hidden, queries, bias=False)
        self.k = nn.Linear(model.hidden, keys, bias=False)
        self.v = nn.Linear(model.hidden, keys, bias=False)
        self.o = nn.Linear(queries, model.hidden, bias=False)
        self.sinks = nn.Parameter(torch.zeros(model.heads)) if model.attention.sinks else None
        self.feed_forward_norm = RMSNorm(model.hidden, model.norm_eps)
        self.feed_forward = FeedForward(model.hidden, model.feed_forward, feed_forward_chunk)

    def forward(self, x: Tensor, tables: Tables, attend: Attend) -> Tensor:
        if self.recompute == "none":
            return self._whole(x, tables, attend)
        if self.recompute == "attention":
            o_BHSD = attend(self.index, *_again(self._project, x, tables), self.sinks)
            return _again(self._finish, x, o_BHSD)
        return _again(self._whole, x, tables, attend, contexts=_CONTEXTS[self.recompute])

    def _whole(self, x: Tensor, tables: Tables, attend: Attend) -> Tensor:
        return self._finish(x, attend(self.index, *self._project(x, tables), self.sinks))

    def _project(self, x: Tensor, tables: Tables) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.attention_norm(x)
        q, k, v = (self._heads(projection(normed)) for projection in (self.q, self.k, self.v))
        return rotate(q, *tables), rotate(k, *tables), v.contiguous()

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _finish(self, x: Tensor, o_BHSD: Tensor) -> Tensor:
        x = x + self.o(o_BHSD.transpose(1, 2).flatten(2))
        return cast(Tensor, x + self.feed_forward(self.feed_forward_norm(x)))


def _again(function: Callable[..., _T], *args: object, contexts: Contexts = noop_context_fn) -> _T:
    """Keep the arguments alone, and call again in the backward pass; no dropout, so no random state to keep.

    `contexts`: makes the two contexts, of the first call and of the second.
    """
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def padded_vocabulary(vocabulary: int) -> int:
    """Rows of embedding and head: the next multiple of 64, which matrix units want."""
    return -(-vocabulary // 64) * 64


def parameter_count(model: contract.Model, vocabulary: int) -> int:
    """Numbers in the weights of `Transformer(model, vocabulary, ...)`, rows of padding included."""
    attention = 2 * model.hidden * model.head_dim * (model.heads + model.kv_heads)
    sinks = model.heads if model.attention.sinks else 0
    layer = attention + sinks + 3 * model.hidden * model.feed_forward + 2 * model.hidden
    tables = (1 if model.tie_embeddings else 2) * padded_vocabulary(vocabulary) * model.hidden
    return model.layers * layer + tables + model.hidden


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
