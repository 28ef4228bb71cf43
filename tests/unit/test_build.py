"""What a worker refuses by itself, where the operator that should have is another version."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ring_worker.build import require_supported
from ring_worker.contract import Checkpoint, Context, Data, Degrees, Evaluation, Model, RunConfig, Source, Training
from ring_worker.errors import ConfigError


def config(degrees: Degrees, length: int = 96) -> RunConfig:
    return RunConfig(
        job="job",
        job_uid="uid",
        device="cpu",
        degrees=degrees,
        model=Model(layers=1, hidden=48, heads=12, kv_heads=4, head_dim=4, feed_forward=8),
        context=Context(length),
        data=Data(Source("path"), ""),
        training=Training(1, batch=2),
        checkpoint=Checkpoint(""),
        evaluation=Evaluation(),
        output="",
    )


def check(degrees: Degrees, length: int = 96) -> None:
    require_supported(config(degrees, length), SimpleNamespace(launch=SimpleNamespace(world_size=degrees.world_size)))


@pytest.mark.parametrize(
    "degrees",
    [
        Degrees(),
        Degrees(data=2, context=8, ulysses=2, inner_ring=2),
        Degrees(context=12, ulysses=12),
        Degrees(context=6, inner_ring=6),
    ],
)
def test_what_fits_is_built(degrees):
    check(degrees)


@pytest.mark.parametrize(
    "degrees, length, said",
    [
        (Degrees(tensor=2), 96, "pipeline and tensor must be 1"),
        (Degrees(context=6, ulysses=4), 96, "degrees.ulysses: 4 does not divide context 6"),
        (Degrees(context=8, ulysses=8), 96, "degrees.ulysses: 8 must divide the 12 heads"),
        (Degrees(context=6, ulysses=6), 96, "divide the 4 key heads or be a multiple of them"),
        (Degrees(context=8, ulysses=2, inner_ring=3), 96, "degrees.inner_ring: 3 does not divide the ring of 4"),
        (Degrees(context=8, ulysses=4), 7, "context.length: 7 tokens, but context 8 needs at least 8"),
        (Degrees(context=4), 7, "context.length: 7 tokens, but context 4 needs at least 8"),
        (Degrees(data=4), 96, "training.batch: 2 does not divide by data 4"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(degrees, length, said):
    with pytest.raises(ConfigError, match=said):
        check(degrees, length)
