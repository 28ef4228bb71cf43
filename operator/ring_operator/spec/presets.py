"""Shapes of known models (the Llama ones as in their config.json), and of a few small ones to try things with."""

from __future__ import annotations

from ring_operator.spec.model import Architecture, Model, PresetName


def _shape(**fields: object) -> Architecture:
    return Architecture.model_validate(fields)


PRESETS: dict[PresetName, Architecture] = {
    "llama-3.1-8b": _shape(
        layers=32,
        hidden=4096,
        heads=32,
        kvHeads=8,
        headDim=128,
        feedForward=14336,
        vocabulary=128256,
        ropeBase=500000.0,
    ),
    "llama-3.2-3b": _shape(
        layers=28,
        hidden=3072,
        heads=24,
        kvHeads=8,
        headDim=128,
        feedForward=8192,
        vocabulary=128256,
        ropeBase=500000.0,
        tieEmbeddings=True,
    ),
    "llama-3.2-1b": _shape(
        layers=16,
        hidden=2048,
        heads=32,
        kvHeads=8,
        headDim=64,
        feedForward=8192,
        vocabulary=128256,
        ropeBase=500000.0,
        tieEmbeddings=True,
    ),
    "small-100m": _shape(layers=12, hidden=768, heads=12, kvHeads=4, headDim=64, feedForward=2048),
    "tiny-1m": _shape(layers=4, hidden=128, heads=4, kvHeads=2, headDim=32, feedForward=320),
}


def architecture_of(model: Model) -> Architecture:
    """The shape that a preset or an architecture block says. Call it only for a model that has one of them."""
    if model.architecture is not None:
        return model.architecture
    assert model.preset is not None, "a Hugging Face folder is refused before its shape is asked for"
    return PRESETS[model.preset]
