"""What to train: written once for a job by the operator's `render`, read by every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ring_worker.contract.strict import VERSION, dump, load


@dataclass(frozen=True, slots=True)
class Degrees:
    """Parallel degrees; the product of the first four is the world size.

    `ulysses` ranks of context share a place in the ring and split the heads. `inner_ring`: ranks of an inner ring, in a
    ring of rings; None: one ring.
    """

    data: int = 1
    pipeline: int = 1
    context: int = 1
    tensor: int = 1
    ulysses: int = 1
    inner_ring: int | None = None

    @property
    def ring(self) -> int:
        """Places in a ring, each of `ulysses` ranks."""
        return self.context // self.ulysses

    @property
    def rings_in_ring(self) -> int:
        """Inner rings; 1: a ring as all are."""
        return self.ring // (self.inner_ring or self.ring)

    @property
    def world_size(self) -> int:
        return self.data * self.pipeline * self.context * self.tensor

    @property
    def rings(self) -> int:
        """Number of rings: one for each (pipeline, data, tensor) coordinate."""
        return self.data * self.pipeline * self.tensor


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding. `kind`: default | linear | ntk | yarn | llama3. `original_length` in tokens."""

    kind: str = "default"
    base: float = 10000.0
    factor: float = 1.0
    original_length: int = 0


@dataclass(frozen=True, slots=True)
class AttentionPattern:
    """Kinds of the layers (full | window | chunk), repeated over the depth; `window`, `chunk` in tokens.

    `global_tokens`: first tokens of each document that window layers see as well. `sinks`: whether each head learns a
    logit without a value. `soft_cap` c: scores s become c tanh(s / c); None: they stay.
    """

    pattern: tuple[str, ...] = ("full",)
    window: int = 4096
    chunk: int = 8192
    global_tokens: int = 0
    sinks: bool = False
    soft_cap: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A Llama-type transformer. `vocabulary` 0 means: as large as the tokenizer's."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int = 0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    rope: Rope = Rope()
    attention: AttentionPattern = AttentionPattern()


@dataclass(frozen=True, slots=True)
class Context:
    """`length` in tokens, of one sequence over all ranks of a ring; `layout`: zigzag | striped | contiguous."""

    length: int
    layout: str = "zigzag"
    stripe: int = 64  # tokens in a stripe of the striped layout


@dataclass(frozen=True, slots=True)
class Source:
    """Where the text is. `kind`: path (a file, folder) | jsonl | builtin. `name` is the built-in's.

    `include` and `exclude` are glob patterns against the path relative to `path` (`**` crosses folders);
    `field` is the JSON field that holds the text of a document.
    """

    kind: str
    path: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    field: str = "text"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """`tokenizer`: "bytes" or the path of a tokenizer.json. `packing`: documents | concatenate.

    `on_error`: stop | skip. `prepared`: folder of the token shards. `workers`: processes that prepare (0: all cores).
    """

    source: Source
    prepared: str
    tokenizer: str = "bytes"
    packing: str = "documents"
    held_out_fraction: float = 0.02
    on_error: str = "stop"
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Optimizer:
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over steps. `kind`: cosine | constant."""

    kind: str = "cosine"
    warmup_steps: int = 100
    final_ratio: float = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """Every so many steps (0: never), one layer's attention of `rows` queries is computed again densely."""

    every_steps: int = 0
    rows: int = 4


@dataclass(frozen=True, slots=True)
class Training:
    """`batch`: sequences in a step over all data ranks. `precision`: bf16 | fp32.

    `recompute` in the backward pass: none | attention (all but the attention, whose q, k, v, output are kept) | output
    (the same, with the output alone kept) | late (and of it the late half of a rank's tokens) | full.
    `ring_gradients`: fp32 | bf16, in which sums of gradients travel.
    """

    steps: int
    batch: int = 1
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: str = "bf16"
    recompute: str = "none"
    seed: int = 0
    log_every_steps: int = 1
    ring_gradients: str = "fp32"
    probe: Probe = Probe()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`path`: folder of the checkpoints. `resume`: latest | none | path of one. Intervals of 0 are off."""

    path: str
    every_steps: int = 100
    every_minutes: float = 0.0
    keep: int = 3
    resume: str = "latest"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out loss every `every_steps` (0: only at the end) over at most `sequences` sequences; at the end over all.

    `sample_tokens`: tokens of text generated at the end (0: none), continuing `sample_prompt`.
    """

    every_steps: int = 100
    sequences: int = 4
    held_out: bool = True
    sample_tokens: int = 0
    sample_prompt: str = ""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that the worker must know of a job. `device`: cpu (gloo) | cuda (NCCL).

    `threads`: CPU threads a rank computes with. `output`: folder of metrics.jsonl, report.json, loss.png.
    """

    job: str
    job_uid: str
    device: str
    degrees: Degrees
    model: Model
    context: Context
    data: Data
    training: Training
    checkpoint: Checkpoint
    evaluation: Evaluation
    output: str
    threads: int = 1
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read strictly. Raises ContractError with the path of the first fault."""
        return load(cls, text, "RunConfig")
