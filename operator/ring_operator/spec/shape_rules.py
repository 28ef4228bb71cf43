"""Rules of the model's shape, of its context, and of how either is divided: rows of the table in `rules`."""

from __future__ import annotations

from collections.abc import Iterator

from ring_operator.errors import Fault
from ring_operator.spec.base import Section
from ring_operator.spec.model import Architecture, Context, Model, Parallelism
from ring_operator.spec.presets import PRESETS
from ring_operator.spec.training import Data

Faults = Iterator[Fault]

BYTES_VOCABULARY = 257  # of the worker's tokenizer "bytes": the bytes, and a token for a document's start


def alias(section: Section, name: str) -> str:
    return type(section).model_fields[name].alias or name


def is_changed(section: Section, name: str) -> bool:
    """A default that is written out says nothing, and stands in every manifest that a run has recorded."""
    return bool(getattr(section, name) != type(section).model_fields[name].default)


def heads_fit(model: Model) -> Faults:
    shape = model.architecture
    if shape is None:
        return
    path = "spec.model.architecture"
    if shape.heads % shape.key_heads:
        yield Fault(
            f"{path}.kvHeads",
            f"{shape.key_heads} does not divide heads {shape.heads}",
            f"Take one of {_divisors(shape.heads)}.",
        )
    yield from _head_width(shape, path)


def _head_width(shape: Architecture, path: str) -> Faults:
    if shape.head_dim is None and shape.hidden % shape.heads:
        yield Fault(
            f"{path}.hidden",
            f"{shape.hidden} is not divisible by heads {shape.heads}",
            f"Set headDim, or take hidden {shape.hidden // shape.heads * shape.heads or shape.heads}.",
        )
    elif shape.head_width % 2:
        yield Fault(
            f"{path}.headDim",
            f"{shape.head_width} is odd, but rotary positions turn pairs",
            f"Take {shape.head_width + 1}.",
        )


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)


def rope_reaches(context: Context) -> Faults:
    rope, path = context.rope, "spec.context.rope"
    if rope.type == "default":
        if rope.factor != 1.0 or rope.original_length is not None:
            yield Fault(path, "factor and originalLength have no effect with type default", "Set type, such as yarn.")
    elif rope.original_length is None:
        if rope.type != "linear":  # the others turn each frequency by how often it fits into the original length
            message = f"is missing; {rope.type} needs it"
            yield Fault(f"{path}.originalLength", message, "Give the length trained on, in tokens.")
    elif rope.factor * rope.original_length < context.length:
        reach = f"{rope.factor:g} x originalLength {rope.original_length:,} = {rope.factor * rope.original_length:,.0f}"
        yield Fault(
            f"{path}.factor",
            f"{reach} positions, but context.length is {context.length:,}",
            f"Raise factor to {-(-context.length // rope.original_length)}.",
        )


def vocabulary_holds_the_bytes(model: Model, data: Data) -> Faults:
    vocabulary = model.architecture.vocabulary if model.architecture else None
    if data.tokenizer == "bytes" and vocabulary is not None and vocabulary < BYTES_VOCABULARY:
        yield Fault(
            "spec.model.architecture.vocabulary",
            f"{vocabulary}, but the tokenizer bytes has {BYTES_VOCABULARY} tokens: 256 bytes, and a document's start",
            f"Raise it to {BYTES_VOCABULARY}, or leave it out.",
        )


def spans_have_their_layers(model: Model) -> Faults:
    attention = model.attention
    for name, kind in (("window", "window"), ("chunk", "chunk"), ("global_tokens", "window")):
        if kind not in attention.pattern and is_changed(attention, name):
            message = f"{getattr(attention, name)} has no effect: no layer of the pattern is of the kind {kind}"
            remedy = f"Leave it out, or put {kind} into the pattern."
            yield Fault(f"spec.model.attention.{alias(attention, name)}", message, remedy)


def stripe_has_its_layout(context: Context) -> Faults:
    if context.layout != "striped" and is_changed(context, "stripe"):
        message = f"{context.stripe} has no effect with layout {context.layout}"
        yield Fault("spec.context.stripe", message, "Leave it out, or set layout to striped.")


def ulysses_fits(parallelism: Parallelism, model: Model) -> Faults:
    ulysses, context, path = parallelism.ulysses, parallelism.context, "spec.parallelism.ulysses"
    if isinstance(context, int) and context % ulysses:
        yield Fault(path, f"{ulysses} does not divide context {context}", f"Take one of {_divisors(context)}.")
    shape = model.architecture or (PRESETS[model.preset] if model.preset else None)
    if shape is None or shape.heads % shape.key_heads:
        return
    fitting = [u for u in range(1, shape.heads + 1) if shape.heads % u == 0 and _shares(shape.key_heads, u)]
    remedy = f"Take one of {', '.join(map(str, fitting))} that divides context."
    if shape.heads % ulysses:
        yield Fault(path, f"{ulysses} does not divide heads {shape.heads}", remedy)
    elif not _shares(shape.key_heads, ulysses):
        yield Fault(path, f"{ulysses} neither divides kvHeads {shape.key_heads} nor is a multiple of them", remedy)


def _shares(key_heads: int, ulysses: int) -> bool:
    """Whether key heads can be dealt out, or one of them goes to equally many ranks."""
    return key_heads % ulysses == 0 or ulysses % key_heads == 0


def inner_rings_fit(parallelism: Parallelism) -> Faults:
    inner, context, ulysses = parallelism.inner_ring, parallelism.context, parallelism.ulysses
    if inner is None or not isinstance(context, int) or context % ulysses:
        return
    ring = context // ulysses
    if ring % inner:
        yield Fault(
            "spec.parallelism.innerRing",
            f"{inner} does not divide the ring, context {context} / ulysses {ulysses} = {ring}",
            f"Take one of {_divisors(ring)}, or leave it out.",
        )
