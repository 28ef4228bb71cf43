"""How much there is to do: tokens, layers by kind, weights, arithmetic, and what one ring step passes on.

Counts, not predictions: seconds and bytes of memory are for `memory` and for measurement. Arithmetic is counted in
the usual way: 6 operations a weight and token (2 forward, 4 backward), and for attention 12 x heads x width for each
pair of query and visible key (2 products forward, 4 backward, 2 operations each), without what is recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.spec import Architecture, Attention, JobSpec, architecture_of
from ring_operator.spec.model import LayerKind
from ring_operator.spec.shape_rules import BYTES_VOCABULARY
from ring_worker.contract import Degrees

_ROWS_MULTIPLE = 64  # the worker pads embedding and head to it, which matrix units want


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers of one kind. `reach`: tokens that a query can see at most. `pairs`: of query and key, in a sequence.

    `global_tokens`: of the reach, what is seen for being the first of the sequence.
    """

    kind: LayerKind
    count: int
    reach: int
    pairs: int
    global_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """`weights`: parameters (with a tokenizer of unknown size, without its embeddings). Operations are of one step.

    `block_bytes`: keys and values that a rank passes to the next in a ring step of a full layer, forward; where heads
    are split, of its own heads alone.
    """

    layers: tuple[LayerGroup, ...]
    weights: int
    linear_flops: float
    attention_flops: float
    block_bytes: int

    @property
    def flops(self) -> float:
        return self.linear_flops + self.attention_flops


def work_of(spec: JobSpec, degrees: Degrees) -> Work:
    """Count for one optimizer step over all ranks."""
    shape = architecture_of(spec.model)
    layers = layer_groups(spec.model.attention, shape.layers, spec.context.length)
    vocabulary = BYTES_VOCABULARY if spec.data.tokenizer == "bytes" else 0
    weights = count_weights(shape, vocabulary, spec.model.attention.sinks)
    tokens = spec.training.batch * spec.context.length
    pairs = spec.training.batch * sum(group.count * group.pairs for group in layers)
    number_bytes = 2 if spec.training.precision == "bf16" else 4
    tokens_in_ring = -(-spec.context.length // degrees.ring)
    return Work(
        layers=layers,
        weights=weights,
        linear_flops=6.0 * weights * tokens,
        attention_flops=12.0 * shape.heads * shape.head_width * pairs,
        block_bytes=2 * max(1, shape.key_heads // degrees.ulysses) * shape.head_width * number_bytes * tokens_in_ring,
    )


def layer_groups(attention: Attention, layers: int, length: int) -> tuple[LayerGroup, ...]:
    """The pattern repeated over the depth, counted by kind, in the order of the pattern."""
    kinds = [attention.pattern[i % len(attention.pattern)] for i in range(layers)]
    return tuple(_group(kind, kinds.count(kind), attention, length) for kind in dict.fromkeys(kinds))


def _group(kind: LayerKind, count: int, attention: Attention, length: int) -> LayerGroup:
    reach = min({"full": length, "window": attention.window, "chunk": attention.chunk}[kind], length)
    beyond = min(attention.global_tokens, length - reach) if kind == "window" else 0
    return LayerGroup(kind, count, reach + beyond, causal_pairs(kind, reach, length, beyond), beyond)


def causal_pairs(kind: LayerKind, reach: int, length: int, global_tokens: int = 0) -> int:
    """Pairs of query and visible key in a causal sequence without document borders.

    `global_tokens` are seen beside a window, as far as they lie before it: the first query that the window does not
    reach back from sees one of them, the next one two, and so on, as if they were a window of that size of their own.
    """
    if kind == "chunk":
        whole, rest = divmod(length, reach)
        return whole * _triangle(reach) + _triangle(rest)
    rest, beyond = length - reach, min(global_tokens, length - reach)
    return _triangle(reach) + rest * reach + _triangle(beyond) + (rest - beyond) * beyond


def _triangle(side: int) -> int:
    return side * (side + 1) // 2


def count_weights(shape: Architecture, tokenizer_vocabulary: int, sinks: bool = False) -> int:
    """Parameters of the worker's transformer: embeddings, norms, attention, feed-forward; the head unless tied."""
    query, key = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    attention = shape.hidden * (query + 2 * key) + query * shape.hidden + (shape.heads if sinks else 0)
    layer = attention + 3 * shape.hidden * shape.feed_forward + 2 * shape.hidden
    rows = -(-max(shape.vocabulary or 0, tokenizer_vocabulary) // _ROWS_MULTIPLE) * _ROWS_MULTIPLE
    embeddings = rows * shape.hidden * (1 if shape.tie_embeddings else 2)
    return shape.layers * layer + shape.hidden + embeddings
