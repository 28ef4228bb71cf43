"""What is trained: the model, the context it reads, and over how many ranks either is spread."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from ring_operator.spec.base import Count, CountOrNone, Degree, Line, Section

LayerKind = Literal["full", "window", "chunk"]
PresetName = Literal["llama-3.1-8b", "llama-3.2-3b", "llama-3.2-1b", "small-100m", "tiny-1m"]


class Architecture(Section):
    """A Llama-type transformer: RMSNorm, SwiGLU, grouped heads, rotary positions."""

    layers: Annotated[int, Field(ge=1, le=1024)]
    """Number of transformer layers."""
    hidden: Annotated[int, Field(ge=2, le=65536)]
    """Width of the residual stream."""
    heads: Annotated[int, Field(ge=1, le=1024)]
    """Query heads of each layer."""
    kv_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Key and value heads of each layer; must divide heads. Default: as many as heads."""
    head_dim: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Width of a head; even, since rotary positions turn pairs. Default: hidden / heads."""
    feed_forward: Annotated[int, Field(ge=1, le=1_048_576)]
    """Inner width of the feed-forward part."""
    vocabulary: Annotated[int, Field(ge=2, le=4_194_304)] | None = None
    """Number of token ids. Default: as many as the tokenizer has."""
    norm_eps: Annotated[float, Field(gt=0.0, le=0.1)] = 1e-5
    """Added to the mean square in RMSNorm."""
    tie_embeddings: bool = False
    """Whether the output layer is the input embedding."""
    rope_base: Annotated[float, Field(ge=1.0, le=1e12)] = 10000.0
    """Base of the rotary position embedding's wavelengths."""

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.hidden // self.heads


class Attention(Section):
    """Which tokens a layer sees, layer by layer."""

    pattern: Annotated[tuple[LayerKind, ...], Strict(False), Field(min_length=1, max_length=128)] = ("full",)
    """Kinds of the layers, repeated over the depth: full sees all earlier tokens, window the last few, chunk those of
    its own chunk."""
    window: Count = 4096
    """Tokens that a window layer sees, itself included."""
    chunk: Count = 8192
    """Tokens in a chunk of a chunk layer."""
    global_tokens: CountOrNone = 0
    """First tokens that every window layer sees beside its window, counted from the start of each packed document."""
    sinks: bool = False
    """Whether each head of each layer learns a sink: one more logit in its softmax, which takes weight and gives no
    value."""
    soft_cap: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Bound c of the scores: each score s becomes c tanh(s / c). Default: none."""


class Model(Section):
    """The model: exactly one of preset, architecture and hf."""

    preset: PresetName | None = None
    """A known model's shape, with new weights."""
    architecture: Architecture | None = None
    """A shape of your own, with new weights."""
    hf: Line | None = None
    """Folder of a Hugging Face model: config.json and safetensors."""
    attention: Attention = Attention()
    """Which tokens each layer sees."""


class Rope(Section):
    """How rotary positions are stretched beyond the length that a model was trained on."""

    type: Literal["default", "linear", "ntk", "yarn", "llama3"] = "default"
    """The stretching: default is none."""
    factor: Annotated[float, Field(ge=1.0, le=1_048_576.0)] = 1.0
    """How many times originalLength the positions reach."""
    original_length: Count | None = None
    """Tokens of context that the model was trained on."""


class Context(Section):
    """The sequence, and how a ring divides it."""

    length: Annotated[int, Field(ge=2, le=1_073_741_824)]
    """Tokens of one sequence, spread over all ranks of a ring."""
    layout: Literal["zigzag", "striped", "contiguous"] = "zigzag"
    """Which tokens a rank holds: zigzag gives each one early and one late piece, so that causal work is even; striped
    deals out stripes in turn; contiguous gives each one piece."""
    stripe: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """Tokens in a stripe of the striped layout."""
    rope: Rope = Rope()
    """How rotary positions are stretched."""


class Parallelism(Section):
    """How the work is spread. The product of data, pipeline, context and tensor is the number of ranks."""

    data: Degree = "auto"
    """Groups of ranks that train on different sequences. auto: what the other degrees leave."""
    pipeline: Degree = 1
    """Groups of ranks that hold different layers. auto: 1."""
    context: Degree = "auto"
    """Ranks of a ring, each with a part of every sequence. auto: as many as the sequence feeds well."""
    tensor: Degree = "auto"
    """Ranks that share each matrix. auto: 1."""
    ulysses: Annotated[int, Field(ge=1, le=1024)] = 1
    """Ranks of a ring that split heads instead of the sequence; the ring itself is context / ulysses long."""
    inner_ring: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Ranks of an inner ring, in a ring of rings; must divide context / ulysses. Blocks go round the inner rings at
    every step and cross to the next one once an inner round: for rings that span slow links. Default: one ring."""
