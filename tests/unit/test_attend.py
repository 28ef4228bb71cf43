"""The model with the ring's attention: what is repeated in the backward pass, what bends scores, and the probe."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ring_worker.attend import Watch, alone, layer_masks, over_ring
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Mask
from ring_worker.attention.probe import Probed
from ring_worker.attention.ring import Ring
from ring_worker.contract import AttentionPattern, Model, Probe, RunConfig, Training
from ring_worker.model import RECOMPUTE, Transformer
from ring_worker.step import StepResult, Wishes, draw_watch, mismatch_warning

torch.set_num_threads(1)

LENGTH, LAYERS = 64, 3
PATTERN = AttentionPattern(("window", "full"), window=9, global_tokens=3, sinks=True, soft_cap=2.0)
MODEL = Model(LAYERS, hidden=24, heads=6, kv_heads=2, head_dim=4, feed_forward=20, attention=PATTERN)
TOKENS, PLACES = torch.arange(LENGTH)[None] * 7 % 50, torch.arange(LENGTH)


def built(model: Model = MODEL, recompute: str = "none") -> Transformer:
    transformer = Transformer(model, 50, recompute, 1000)
    transformer.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return transformer


def lone_ring() -> Ring:
    return Ring(Layout("zigzag", LENGTH, 1))


def trained(recompute: str, model: Model = MODEL, watch: Watch | None = None):
    """(every gradient, times of the forward passes)."""
    transformer, ring = built(model, recompute), lone_ring()
    attend = over_ring(ring, layer_masks(model), model.attention.soft_cap, watch)
    transformer(TOKENS, PLACES, attend).square().sum().backward()
    return {name: p.grad for name, p in transformer.named_parameters() if p.grad is not None}, ring.meter.take()[0]


def test_the_layers_of_a_pattern_become_masks():
    documents = (0, 30)
    pattern = dataclasses.replace(PATTERN, pattern=("window", "chunk", "full"), chunk=16)
    masks = layer_masks(dataclasses.replace(MODEL, layers=4, attention=pattern), documents)
    window = Mask(window=9, global_tokens=3, documents=documents)
    assert masks == (window, Mask(chunk=16, documents=documents), Mask(documents=documents), window)


@pytest.mark.parametrize("recompute", RECOMPUTE[1:])
def test_no_gradient_depends_on_what_is_kept(recompute):
    plain, other = trained("none")[0], trained(recompute)[0]
    assert plain.keys() == other.keys() >= {"layers.0.sinks"}
    for name in plain:
        if recompute == "late":
            torch.testing.assert_close(other[name], plain[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(other[name], plain[name]), name


@pytest.mark.parametrize(
    "recompute, passes, work",
    [("none", 1, 1.0), ("attention", 1, 1.0), ("output", 1, 1.0), ("late", 2, 1.25), ("full", 2, 2.0)],
)
def test_the_attention_is_computed_again_only_as_far_as_it_was_not_kept(recompute, passes, work):
    model = dataclasses.replace(MODEL, attention=AttentionPattern())
    once, times = trained("none", model)[1], trained(recompute, model)[1]
    assert times.passes == passes * LAYERS
    assert times.flops == pytest.approx(work * once.flops, rel=0.02)  # the early half of a causal square is a quarter


def test_alone_and_over_a_ring_a_model_says_the_same():
    model = built()
    with torch.no_grad():
        cap = PATTERN.soft_cap
        one, other = (
            model(TOKENS, PLACES, attend)
            for attend in (alone(layer_masks(MODEL), cap), over_ring(lone_ring(), layer_masks(MODEL), cap))
        )
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for change in ({"soft_cap": None}, {"sinks": False}, {"global_tokens": 0}):
            pattern = dataclasses.replace(PATTERN, **change)
            changed = built(dataclasses.replace(MODEL, attention=pattern))
            changed.load_state_dict(model.state_dict(), strict=False)
            masks = layer_masks(dataclasses.replace(MODEL, attention=pattern))
            assert not torch.allclose(changed(TOKENS, PLACES, alone(masks, pattern.soft_cap)), one, atol=1e-4), change


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Stands in for the probe, and says how it was asked."""
    calls: list[dict] = []

    def probe(q, k, v, o, ring, mask, *, scale=None, softcap=None, sinks=None, rows=4, seed=0):
        dense = over_ring(lone_ring(), (mask,), softcap)(0, q, k, v, sinks)
        calls.append({"mask": mask, "softcap": softcap, "sinks": sinks, "rows": rows, "seed": seed})
        calls[-1] |= {"grad": torch.is_grad_enabled(), "autocast": torch.is_autocast_enabled("cpu")}
        calls[-1] |= {"worst": float((dense - o).abs().max()), "paused": ring.meter.paused}
        return Probed(rows, 1, 0.5)

    monkeypatch.setattr("ring_worker.attend.probe", probe)
    return calls


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_the_drawn_layer_is_probed_once_and_changes_nothing(asked, recompute):
    watch = Watch(layer=1, rows=5, seed=7)
    with torch.autocast("cpu", torch.bfloat16):
        watched, times = trained(recompute, watch=watch)
        plain, unwatched = trained(recompute)
    (call,) = asked
    assert (call["rows"], call["seed"], call["softcap"], call["mask"]) == (5, 7, 2.0, Mask())
    assert call["sinks"].shape == (6,)
    assert (call["worst"], call["grad"], call["autocast"], call["paused"]) == (0.0, False, False, True)
    assert watch.found == Probed(5, 1, 0.5)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert times.flops == unwatched.flops


@pytest.mark.parametrize("enabled", [False, True])
def test_what_a_layer_gives_is_dense_attention_in_either_precision(enabled):
    for layer in range(LAYERS):
        watch = Watch(layer, rows=LENGTH, seed=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            trained("none", watch=watch)
        assert watch.found is not None
        assert (watch.found.rows, watch.found.mismatches) == (LENGTH, 0), watch


def config(every: int, seed: int = 0) -> RunConfig:
    training = Training(100, seed=seed, probe=Probe(every, 6))
    return dataclasses.replace(_EMPTY, training=training, model=dataclasses.replace(MODEL, layers=8))


_EMPTY = RunConfig(*["x"] * 3, *[None] * 7, output="")  # type: ignore[arg-type]


def test_every_nth_step_probes_a_layer_drawn_from_its_seed():
    watches = {step: draw_watch(config(10), step) for step in range(1, 201)}
    assert [step for step, watch in watches.items() if watch] == list(range(10, 201, 10))
    assert watches[10] == draw_watch(config(10), 10) != draw_watch(config(10, seed=1), 10)
    assert {watch.layer for watch in watches.values() if watch} == set(range(8))
    assert {watch.rows for watch in watches.values() if watch} == {6}
    assert not any(draw_watch(config(0), step) for step in range(100))


def test_a_mismatch_is_told_with_step_layer_rows_and_worst_error():
    watch = Watch(layer=3, rows=8, seed=0, found=Probed(8, 2, 0.03125))
    said = mismatch_warning(40, watch)
    assert said is not None
    assert said.startswith(
        "step 40: attention of layer 3 is wrong in 2 of the 8 rows probed on this rank, by up to 0.0312"
    )
    result = StepResult(1.0, 1.0, 1e-3, 1.0, Wishes(), watch)
    assert (result.probes.rows, result.probes.mismatches) == (8, 2)
    assert mismatch_warning(40, None) is None
    assert mismatch_warning(40, dataclasses.replace(watch, found=Probed(8, 0, 1e-6))) is None
