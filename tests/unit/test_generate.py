"""Text drawn from a model, token by token."""

import collections

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ring_worker.contract import Model
from ring_worker.generate import Sampling, generate
from ring_worker.model import Transformer

torch.set_num_threads(1)

VOCABULARY = 70


def causal(layer, q, k, v, sinks=None):
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@pytest.fixture(scope="module")
def model():
    shape = Model(layers=2, hidden=16, heads=4, kv_heads=2, head_dim=4, feed_forward=24)
    transformer = Transformer(shape, VOCABULARY, "none", 100)
    transformer.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return transformer


def drawn(model, prompt, **options):
    return list(generate(model, causal, prompt, Sampling(**{"count": 20, "context": 8, **options})))


def test_the_greedy_continuation_is_the_likeliest_token_after_the_window(model):
    window, wanted = [3, 1, 4], []
    for _ in range(20):
        with torch.no_grad():
            hidden = model(torch.tensor([window]), torch.arange(len(window)), causal)
        wanted.append(int((hidden[0, -1] @ model.head_weight[:VOCABULARY].T).argmax()))
        window = [*window, wanted[-1]][-8:]
    assert drawn(model, [3, 1, 4], temperature=0.0) == wanted


def test_a_seed_gives_the_same_text_and_disturbs_nothing(model):
    before = torch.get_rng_state()
    first, again, other = (drawn(model, [3, 1, 4], seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_the_window_is_bounded(model):
    lengths = []

    def attend(layer, q, k, v, sinks):
        lengths.append(q.shape[2])
        return causal(layer, q, k, v)

    list(generate(model, attend, list(range(6)), Sampling(count=4, context=8)))
    assert lengths[::2] == [6, 7, 8, 8]
    assert drawn(model, list(range(50))) == drawn(model, list(range(50))[-8:])


def test_top_k_of_one_is_greedy_whatever_the_temperature(model):
    assert drawn(model, [5], top_k=1, temperature=9.0) == drawn(model, [5], temperature=0.0)


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.5, 0), (1.0, 5)])
def test_draws_follow_the_distribution(model, temperature, top_k):
    with torch.no_grad():
        logits = model(torch.tensor([[9]]), torch.tensor([0]), causal)[0, -1] @ model.head_weight[:VOCABULARY].T
    likeliest = logits.topk(top_k or VOCABULARY)
    p = torch.zeros(VOCABULARY).index_put((likeliest.indices,), (likeliest.values / temperature).softmax(-1))
    counts = collections.Counter(
        drawn(model, [9], count=1, seed=seed, temperature=temperature, top_k=top_k)[0] for seed in range(400)
    )
    observed = torch.tensor([counts[token] / 400 for token in range(VOCABULARY)])
    assert (observed[p == 0] == 0).all()
    assert 0.5 * (observed - p).abs().sum() < 0.17  # total variation; another temperature is beyond 0.25


def test_no_token_of_the_padding_is_drawn(model):
    with torch.no_grad():
        model.embed.weight[VOCABULARY:] = 1e3
        model.head.weight[VOCABULARY:] = 1e3
    assert max(drawn(model, [0], count=50, temperature=5.0)) < VOCABULARY


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="prompt has no token"):
        drawn(model, [])
