"""What is learnt from and how: data, optimisation, checkpoints, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from ring_operator.spec.base import AbsolutePath, Count, CountOrNone, Fraction, Line, Section, Seed, Text

Globs = Annotated[tuple[Line, ...], Strict(False), Field(max_length=64)]


class JsonLines(Section):
    """One JSON object a line, each a document."""

    path: Line
    """A file, or a folder of *.jsonl files."""
    field: Line = "text"
    """Field of the object that holds the text."""


class Parquet(Section):
    """Rows of Parquet files, each a document."""

    path: Line
    """A file, or a folder of *.parquet files."""
    column: Line = "text"
    """Column that holds the text."""


class TokenFiles(Section):
    """Tokens that are prepared already."""

    path: Line
    """Folder of token shards."""


class Source(Section):
    """Where the text is: exactly one of path, jsonl, parquet, tokens and builtin."""

    path: Line | None = None
    """A file, or a folder whose files are the documents."""
    include: Globs = ()
    """Glob patterns of the files to take, relative to the folder; ** crosses folders. Default: all."""
    exclude: Globs = ()
    """Glob patterns of the files to leave out."""
    jsonl: JsonLines | None = None
    """One JSON object a line."""
    parquet: Parquet | None = None
    """Rows of Parquet files."""
    tokens: TokenFiles | None = None
    """Tokens that are prepared already."""
    builtin: Literal["python-stdlib"] | None = None
    """Text that every machine has: python-stdlib is the source of Python's own standard library."""


class HeldOut(Section):
    """Documents that are never trained on."""

    fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.02
    """Share of the documents, chosen by a hash of their names."""


class Data(Section):
    """The text, and how it becomes tokens."""

    source: Source
    """Where the text is."""
    tokenizer: Line = "bytes"
    """bytes, or the path of a Hugging Face tokenizer.json."""
    packing: Literal["documents", "concatenate"] = "documents"
    """documents: attention stops at their borders. concatenate: it does not, as befits books and repositories."""
    held_out: HeldOut = HeldOut()
    """Documents that are never trained on."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a bad file does: stop the job, or be skipped, counted and named."""
    seed: Seed = 0
    """Seed of the order of the documents."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that prepare the data. 0: one a core."""
    prepared: AbsolutePath | None = None
    """Folder of the prepared tokens. Default: data, in the folder of the checkpoints."""


class Optimizer(Section):
    """AdamW."""

    lr: Annotated[float, Field(gt=0.0, le=10.0)] = 3e-4
    """Highest learning rate."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]], Strict(False)
    ] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """Decoupled weight decay."""
    clip_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    """Largest global norm of the gradient."""


class Schedule(Section):
    """The learning rate over the steps."""

    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    """cosine falls to finalRatio at the last step; constant stays; wsd stays and falls at the end."""
    warmup_steps: CountOrNone | None = None
    """Steps over which the learning rate rises to its highest. Default: a tenth of the steps, at most 100."""
    final_ratio: Fraction = 0.1
    """Last learning rate as a share of the highest."""


class Probe(Section):
    """Attention checked while it trains: a few rows of one layer are computed again densely and compared."""

    every_steps: CountOrNone = 0
    """Steps between two probes, each of one layer that is drawn anew. 0: off."""
    rows: Annotated[int, Field(ge=1, le=4096)] = 4
    """Query rows of a sequence that a probe computes again, wherever they are."""


class Training(Section):
    """How long and how the model is trained."""

    steps: Count
    """Optimizer steps."""
    batch: Annotated[int, Field(ge=1, le=1_048_576)] = 1
    """Sequences of context.length in a step, over all data ranks. Each data rank takes one at a time."""
    optimizer: Optimizer = Optimizer()
    """AdamW."""
    schedule: Schedule = Schedule()
    """The learning rate over the steps."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the arithmetic; with bf16 the weights are kept in fp32 too."""
    recompute: Literal["auto", "none", "attention", "output", "late", "full"] = "auto"
    """What the backward pass computes again instead of keeping: nothing; all but the attention, whose inputs are kept
    (attention) or only its output (output, which keeps less); the attention too, but for the late half of each rank's
    tokens (late); or everything."""
    offload: Literal["auto", "none", "host"] = "none"
    """Whether what is kept for the backward pass waits in the host's memory."""
    seed: Seed = 0
    """Seed of the new weights."""
    log_every_steps: Count = 1
    """Steps between two lines of metrics.jsonl."""
    ring_gradients: Literal["fp32", "bf16"] = "fp32"
    """Precision in which sums of gradients travel round the ring; bf16 halves their bytes and rounds at every hop."""
    probe: Probe = Probe()
    """Attention checked while it trains."""


class Checkpoint(Section):
    """When and where the state is saved."""

    path: AbsolutePath = "/checkpoints"
    """Folder of the checkpoints, shared by all pods."""
    every_steps: CountOrNone = 100
    """Steps between two checkpoints. 0: none by steps."""
    every_minutes: Annotated[float, Field(ge=0.0, le=10080.0)] = 0.0
    """Minutes between two checkpoints. 0: none by time."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest complete checkpoints that are kept."""
    resume: Line = "latest"
    """What a new start goes on from: latest, none, or the path of a checkpoint."""


class Needle(Section):
    """Facts hidden in long texts, to be found again."""

    lengths: Annotated[tuple[Count, ...], Strict(False), Field(min_length=1, max_length=64)]
    """Lengths of the texts, in tokens."""
    depths: Annotated[tuple[Fraction, ...], Strict(False), Field(min_length=1, max_length=64)] = (
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    )
    """Where the fact is hidden, as a share of the text."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 10
    """Texts of each length and depth."""


class Evaluation(Section):
    """What is measured on documents that are never trained on."""

    every_steps: CountOrNone = 100
    """Steps between two evaluations. 0: only at the end."""
    sequences: Annotated[int, Field(ge=1, le=1_048_576)] = 4
    """Most held-out sequences of an evaluation on the way; the one at the end takes all."""
    held_out: bool = True
    """Whether the held-out loss is measured."""
    sample_tokens: Annotated[int, Field(ge=0, le=65536)] = 0
    """Tokens of text that the model writes at the end. 0: none."""
    sample_prompt: Text = ""
    """Text that it goes on from."""
    needle: Needle | None = None
    """Facts hidden in long texts, to be found again."""
