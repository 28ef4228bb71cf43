"""Steps of the optimizer against their formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.contract import AttentionPattern, Model, Optimizer, Schedule
from ring_worker.model import Transformer
from ring_worker.optim import clip_by_global_norm, learning_rate, make_optimizer, set_learning_rate

torch.set_num_threads(1)

OPTIMIZER = Optimizer(lr=0.01, betas=(0.8, 0.9), weight_decay=0.5)


def small(tie=False):
    sinks = AttentionPattern(sinks=True)
    model = Model(
        layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, feed_forward=12, tie_embeddings=tie, attention=sinks
    )
    transformer = Transformer(model, 70, "none", 100)
    transformer.initialise(0)
    return transformer


@pytest.mark.parametrize("tie", [False, True])
def test_matrices_decay_and_norms_sinks_and_embeddings_do_not(tie):
    transformer = small(tie)
    for parameter in transformer.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(transformer, OPTIMIZER).step()
    decayed = {name for name, p in transformer.named_parameters() if (p != 1).all()}
    spared = {name for name, p in transformer.named_parameters() if (p == 1).all()}
    kinds = ("norm", "embed", "sinks")
    assert spared == {name for name, _ in transformer.named_parameters() if any(kind in name for kind in kinds)}
    assert decayed | spared == {name for name, _ in transformer.named_parameters()}
    assert ("head.weight" in decayed) is not tie


def test_three_steps_are_those_of_the_paper():
    transformer = small()
    weight = transformer.layers[0].q.weight
    optimizer = make_optimizer(transformer, OPTIMIZER)
    x, m, v = weight.detach().double().clone(), 0.0, 0.0
    for step, rate in enumerate([0.1, 0.02, 0.3], start=1):
        weight.grad = torch.randn(weight.shape)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * weight.grad.double(), 0.9 * v + 0.1 * weight.grad.double() ** 2
        x = x - rate * 0.5 * x - rate * (m / (1 - 0.8**step)) / ((v / (1 - 0.9**step)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach().double(), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind, warmup, step, total, ratio",
    [
        ("cosine", 10, 0, 110, 0.1),
        ("cosine", 10, 4, 110, 0.5),
        ("cosine", 10, 9, 110, 1.0),
        ("cosine", 10, 59, 110, 0.55),  # half way down: the mean of 1 and 0.1
        ("cosine", 10, 109, 110, 0.1),
        ("cosine", 0, 0, 100, 1.0),
        ("cosine", 0, 99, 100, 0.1),
        ("cosine", 0, 0, 1, 1.0),
        ("cosine", 10, 4, 5, 0.5),  # the training ends before the warm-up does
        ("cosine", 10, 200, 110, 0.1),  # a step past the end
        ("constant", 10, 4, 110, 0.5),
        ("constant", 10, 109, 110, 1.0),
    ],
)
def test_the_learning_rate_of_a_step(kind, warmup, step, total, ratio):
    schedule = Schedule(kind=kind, warmup_steps=warmup, final_ratio=0.1)
    assert learning_rate(schedule, OPTIMIZER, step, total) == pytest.approx(0.01 * ratio)


@given(st.integers(0, 50), st.integers(1, 200))
def test_the_rate_rises_once_and_falls_once(warmup, total):
    schedule = Schedule(warmup_steps=warmup, final_ratio=0.2)
    rates = [learning_rate(schedule, OPTIMIZER, step, total) for step in range(total)]
    top = rates.index(max(rates))
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert all(0 < rate <= OPTIMIZER.lr for rate in rates)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"training\.schedule\.kind: 'wsd'"):
        learning_rate(Schedule(kind="wsd"), OPTIMIZER, 0, 10)


def with_gradients(*gradients):
    parameters = [torch.zeros(len(g), requires_grad=True) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_gradients_are_scaled_together_to_the_norm():
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0], [12.0])
    assert clip_by_global_norm(parameters, 6.5).item() == pytest.approx(13.0)
    assert [p.grad.tolist() for p in parameters] == [[1.5, 0.0], [0.0, 2.0], [6.0]]


@pytest.mark.parametrize("gradients", [([0.3], [0.4]), ([0.0], [0.0])])
def test_gradients_within_the_norm_keep_their_bits(gradients):
    parameters = with_gradients(*gradients)
    norm = clip_by_global_norm(parameters, 1.0)
    assert norm.item() == pytest.approx(math.hypot(*(g[0] for g in gradients)))
    assert all(p.grad.tolist() == torch.tensor(g).tolist() for p, g in zip(parameters, gradients, strict=True))


def test_parameters_without_gradient_are_passed_over():
    assert clip_by_global_norm([torch.ones(2, requires_grad=True), *with_gradients([2.0])], 1.0).item() == 2.0


def test_a_norm_that_is_not_finite_is_reported():
    assert clip_by_global_norm(with_gradients([1.0], [math.inf]), 1.0).item() == math.inf
    assert math.isnan(clip_by_global_norm(with_gradients([math.nan]), 1.0).item())
