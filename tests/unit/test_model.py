"""The model against a plain dense Llama in fp64, written here straight from the papers."""

import dataclasses
import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from allocations import Allocations
from ring_worker.contract import AttentionPattern, Model, Rope
from ring_worker.layers import FeedForward, RMSNorm
from ring_worker.model import RECOMPUTE, Transformer, padded_vocabulary, parameter_count

torch.set_num_threads(1)

VOCABULARY = 70
SMALL = Model(layers=2, hidden=24, heads=6, kv_heads=2, head_dim=4, feed_forward=20, norm_eps=1e-4)


def causal(layer, q, k, v, sinks=None):
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def built(model=SMALL, recompute="none", chunk=1000, dtype=torch.float64, seed=0):
    """A model with no weight at zero, as a fresh one's residual projections are."""
    transformer = Transformer(model, VOCABULARY, recompute, chunk)
    transformer.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return transformer.to(dtype)


def batch(size, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (size, length), generator=generator)


def plain_llama(model, w, tokens, positions):
    """Hidden states [S, hidden] of one sequence, head by head, nothing shared with the code under test."""

    def norm(x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.norm_eps).sqrt() * weight

    def turn(x):
        exponents = torch.arange(model.head_dim // 2, dtype=torch.float64) * 2 / model.head_dim
        angles = positions.double()[:, None] / model.rope.base**exponents
        z = torch.complex(x[:, : model.head_dim // 2], x[:, model.head_dim // 2 :]) * torch.exp(1j * angles)
        return torch.cat([z.real, z.imag], -1)

    x = w["embed.weight"][tokens]
    for i in range(model.layers):
        layer = {name.removeprefix(f"layers.{i}."): value for name, value in w.items()}
        normed, heads = norm(x, layer["attention_norm.weight"]), []
        for head in range(model.heads):
            mine = slice(head * model.head_dim, (head + 1) * model.head_dim)
            shared = head // (model.heads // model.kv_heads)
            theirs = slice(shared * model.head_dim, (shared + 1) * model.head_dim)
            q, k = turn(normed @ layer["q.weight"][mine].T), turn(normed @ layer["k.weight"][theirs].T)
            scores = (q @ k.T / model.head_dim**0.5).masked_fill(torch.ones(len(x), len(x)).triu(1) > 0, -torch.inf)
            heads.append(scores.softmax(-1) @ (normed @ layer["v.weight"][theirs].T))
        x = x + torch.cat(heads, -1) @ layer["o.weight"].T
        normed = norm(x, layer["feed_forward_norm.weight"])
        gate, up = normed @ layer["feed_forward.gate.weight"].T, normed @ layer["feed_forward.up.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ layer["feed_forward.down.weight"].T
    return norm(x, w["norm.weight"])


def score(hidden, head_weight):
    """Some number that depends on every hidden state and on the head."""
    weights = torch.linspace(-1, 1, hidden.numel(), dtype=torch.float64).reshape(hidden.shape)
    return (hidden * weights).sum() + (hidden[..., 0, :] @ head_weight[:VOCABULARY].T).logsumexp(-1).sum()


def gradients(transformer, tokens, positions, attend=causal):
    transformer.zero_grad()
    hidden = transformer(tokens, positions, attend)
    score(hidden, transformer.head_weight).backward()
    return {"hidden": hidden.detach()} | {name: p.grad for name, p in transformer.named_parameters()}


def wanted(transformer, model, tokens, positions):
    w = {name: p.detach().double().requires_grad_() for name, p in transformer.named_parameters()}
    rows = [plain_llama(model, w, *pair) for pair in zip(tokens, positions.expand(tokens.shape), strict=True)]
    head = w["embed.weight"] if model.tie_embeddings else w["head.weight"]
    score(torch.stack(rows), head).backward()
    return {"hidden": torch.stack(rows).detach()} | {name: value.grad for name, value in w.items()}


@pytest.mark.parametrize(
    "changes, size, positions",
    [
        ({}, 1, torch.arange(13)),
        ({"kv_heads": 6}, 2, torch.arange(8)),
        ({"kv_heads": 1, "tie_embeddings": True}, 1, torch.arange(9) * 5 + 3),
        ({"layers": 1, "head_dim": 10}, 2, torch.stack([torch.arange(7), torch.arange(7) + 100])),
        ({"rope": Rope(base=500.0)}, 1, torch.tensor([0])),
        ({"layers": 3}, 1, torch.tensor([0, 1, 2, 0, 1, 0, 1, 2, 3])),
    ],
)
def test_hidden_states_and_every_gradient_are_those_of_a_plain_llama(changes, size, positions):
    model = dataclasses.replace(SMALL, **changes)
    transformer, tokens = built(model), batch(size, positions.shape[-1])
    got, want = gradients(transformer, tokens, positions), wanted(transformer, model, tokens, positions)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10, msg=f"{name} differs")


@pytest.mark.parametrize("chunk", [1000, 7])
def test_fp32_and_bf16_are_as_near_as_their_rounding(chunk):
    transformer, tokens, positions = built(dtype=torch.float32, chunk=chunk), batch(1, 40), torch.arange(40)
    want = wanted(transformer, SMALL, tokens, positions)
    for enabled, tolerance in ((False, 1e-5), (True, 0.06)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            got = gradients(transformer, tokens, positions)
        assert got["hidden"].dtype == (torch.bfloat16 if enabled else torch.float32)
        for name in want:
            assert (got[name] - want[name]).norm() <= tolerance * want[name].norm(), name
            assert name == "hidden" or got[name].dtype == torch.float32


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("chunk", [1, 7, 25, 26, 1000])
def test_recomputation_and_chunks_change_no_gradient(recompute, chunk):
    tokens, positions = batch(2, 13), torch.arange(13)
    plain = gradients(built(), tokens, positions)
    other = gradients(built(recompute=recompute, chunk=chunk), tokens, positions)
    for name in plain:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("enabled", [False, True])
def test_recomputation_gives_the_same_bits(enabled):
    tokens, positions = batch(1, 30), torch.arange(30)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        plain, *others = [
            gradients(built(recompute=recompute, chunk=8, dtype=torch.float32), tokens, positions)
            for recompute in RECOMPUTE
        ]
    assert all(torch.equal(other[name], plain[name]) for other in others for name in plain)


@pytest.mark.parametrize(
    "recompute, calls",
    [
        ("none", [0, 1, 2]),
        ("attention", [0, 1, 2]),
        ("output", [0, 1, 2, 2, 1, 0]),  # asked again, which hands back what was kept
        ("late", [0, 1, 2, 2, 1, 0]),
        ("full", [0, 1, 2, 2, 1, 0]),
    ],
)
def test_attention_is_asked_again_from_the_last_layer_on(recompute, calls):
    seen = []

    def attend(layer, q, k, v, sinks):
        assert all(x.is_contiguous() for x in (q, k, v))
        assert (q.shape, k.shape, v.shape) == ((2, 6, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))
        seen.append(layer)
        return causal(layer, q, k, v)

    model = dataclasses.replace(SMALL, layers=3)
    gradients(built(model, recompute), batch(2, 5), torch.arange(5), attend)
    assert seen == calls


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(11)))
def test_tokens_carry_their_positions_whatever_their_order(order):
    """What a ring relies on: a rank's shard is any tokens with their positions."""
    transformer, tokens, order = built(), batch(1, 11), torch.tensor(order)

    def attend(layer, q, k, v, sinks):
        visible = order[:, None] >= order[None, :]
        return scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)

    with torch.no_grad():
        straight = transformer(tokens, torch.arange(11), causal)
        shuffled = transformer(tokens[:, order], order, attend)
    torch.testing.assert_close(shuffled, straight[:, order], rtol=1e-11, atol=1e-11)


def saved_bytes(recompute, layers):
    """Bytes a token that the forward pass keeps in bf16, weights left out, with an attention that keeps q, k, v, o."""
    model = Model(layers=layers, hidden=64, heads=8, kv_heads=2, head_dim=8, feed_forward=176)
    transformer, storages = Transformer(model, VOCABULARY, recompute, 10**6), {}
    transformer.initialise(0)

    def keep(tensor):
        if tensor.numel() % 509 == 0:  # made of tokens; no weight's size is a multiple of this prime
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def attend(layer, q, k, v, sinks):
        return _KeepAll.apply(q, k, v)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        transformer(batch(1, 509), torch.arange(509), attend)
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values()) / 509


class _KeepAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        out = q + 0
        ctx.save_for_backward(q, k, v, out)
        return out


@pytest.mark.parametrize(
    "recompute, most",
    [
        ("none", 12 * 64 + 4 * 64 / 4 + 6 * 176 + 4 * 64),
        ("attention", 2 * 64 + 4 * 64 + 4 * 64 / 4),  # the layer's input; q, o; k, v
        ("full", 2 * 64),
    ],
)
def test_a_layer_keeps_no_more_than_the_memory_plan_says(recompute, most):
    assert 0.8 * most <= saved_bytes(recompute, 3) - saved_bytes(recompute, 2) <= most


def test_the_chunked_feed_forward_never_widens_the_whole_sequence():
    feed_forward = FeedForward(hidden=8, inner=64, chunk=32)
    x = torch.randn(1, 1024, 8, requires_grad=True)
    with Allocations() as seen:
        feed_forward(x).sum().backward()
    assert seen.largest == 1024 * 8  # the input's size; the inner tensors have 32 x 64


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_norm_and_its_gradients(dtype, tolerance):
    norm = RMSNorm(33, eps=1e-5)
    norm.weight.data = torch.randn(33)
    x = (torch.randn(2, 7, 33) * 10).to(dtype).requires_grad_()
    fine, weight = (y.detach().double().requires_grad_() for y in (x, norm.weight))
    want = fine / (fine.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    grad = torch.randn(7, 2, 33).to(dtype).transpose(0, 1)  # not contiguous
    norm = norm.to(torch.float64 if dtype == torch.float64 else torch.float32)
    got = norm(x)
    assert got.dtype == dtype
    mine = (got, *torch.autograd.grad(got, (x, norm.weight), grad))
    for a, b in zip(mine, (want, *torch.autograd.grad(want, (fine, weight), grad.double())), strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def test_the_norm_of_zeros_is_zero_and_has_a_gradient():
    x = torch.zeros(3, 8, requires_grad=True)
    out = RMSNorm(8, eps=1e-5)(x)
    out.sum().backward()
    assert (out == 0).all()
    assert x.grad.isfinite().all()


FINGERPRINT = """
import hashlib, sys, torch
from ring_worker.contract import AttentionPattern, Model, Rope
from ring_worker.model import Transformer
torch.set_num_threads(2)
torch.manual_seed(int(sys.argv[1]))
torch.rand(int(sys.argv[1]))
model = Transformer(eval(sys.argv[2]), 70, "full", 7)
model.initialise(5)
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
"""


def fingerprint(transformer):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in transformer.parameters())).hexdigest()


def test_another_process_starts_from_the_same_weights():
    fresh = Transformer(SMALL, VOCABULARY, "none", 1000)
    fresh.initialise(5)
    command = [sys.executable, "-c", FINGERPRINT, "123", repr(SMALL)]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert other.stdout.strip() == fingerprint(fresh)


def test_weights_follow_the_seed_and_not_the_way_they_were_allocated():
    with torch.device("meta"):
        late = Transformer(SMALL, VOCABULARY, "none", 1000)
    late = late.to_empty(device="cpu")
    prints = set()
    for seed in (5, 6):
        direct = Transformer(SMALL, VOCABULARY, "none", 1000)
        direct.initialise(seed)
        late.initialise(seed)
        assert fingerprint(late) == fingerprint(direct)
        prints.add(fingerprint(direct))
    assert len(prints) == 2


def test_fresh_weights_have_the_scale_that_learns_quickly():
    model = Transformer(dataclasses.replace(SMALL, hidden=64), 2048, "none", 1000)
    model.initialise(0)
    layer = model.layers[1]
    assert model.embed.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert model.head_weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert layer.q.weight.abs().max().item() == pytest.approx(1 / 8, rel=0.02)
    assert (layer.o.weight == 0).all()
    assert (layer.feed_forward.down.weight == 0).all()
    assert (layer.attention_norm.weight == 1).all()
    assert not torch.equal(layer.q.weight, model.layers[0].q.weight)


def test_sinks_are_one_number_a_head_in_fp32_and_begin_at_zero():
    model = Transformer(dataclasses.replace(SMALL, attention=AttentionPattern(sinks=True)), VOCABULARY, "none", 1000)
    model.initialise(0)
    for layer in model.layers:
        assert (layer.sinks.shape, layer.sinks.dtype) == ((SMALL.heads,), torch.float32)
        assert (layer.sinks == 0).all()
    assert model.state_dict().keys() >= {"layers.0.sinks", "layers.1.sinks"}  # what a checkpoint is made of


def test_tied_embeddings_are_one_tensor_and_begin_small():
    model = Transformer(dataclasses.replace(SMALL, tie_embeddings=True), VOCABULARY, "none", 1000)
    model.initialise(0)
    assert model.head_weight is model.embed.weight
    assert model.head_weight[:VOCABULARY].std().item() == pytest.approx(0.02, rel=0.1)


def test_rows_of_padding_are_zero_whatever_the_padding():
    model = Transformer(SMALL, VOCABULARY, "none", 1000)
    model.initialise(0)
    for weight in (model.embed.weight, model.head_weight):
        assert weight.shape == (128, 24)
        assert (weight[VOCABULARY:] == 0).all()
        assert (weight[:VOCABULARY] != 0).all()
    assert [padded_vocabulary(v) for v in (1, 64, 65, 256, 128256)] == [64, 64, 128, 256, 128256]


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("sinks", [True, False])
def test_the_count_of_parameters_is_that_of_the_model(tie, sinks):
    model = dataclasses.replace(SMALL, tie_embeddings=tie, layers=3, attention=AttentionPattern(sinks=sinks))
    transformer = Transformer(model, VOCABULARY, "none", 1000)
    assert parameter_count(model, VOCABULARY) == sum(p.numel() for p in transformer.parameters())


def test_llama_3_8b_has_its_eight_billion():
    model = Model(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, feed_forward=14336)
    assert parameter_count(model, 128256) == 8_030_261_248


@pytest.mark.parametrize(
    "recompute, chunk, words", [("some", 10, "training.recompute: 'some'"), ("none", 0, "feed_forward_chunk: 0")]
)
def test_what_is_no_mode_is_refused(recompute, chunk, words):
    with pytest.raises(ValueError, match=words):
        Transformer(SMALL, VOCABULARY, recompute, chunk)
