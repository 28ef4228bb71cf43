"""Rotary positions against the papers' formulas, one pair at a time, and against arithmetic of 60 digits."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ring_worker.contract import Rope
from ring_worker.rope import rope_frequencies, rotate, rotation_tables

torch.set_num_threads(1)

TWO_PI = Decimal("6.283185307179586476925286766559005768394338798750211641949889")


def by_parts(theta: float, rope: Rope, beta: float) -> float:
    """Section 3.2 of the YaRN paper, in its own words: wavelength, turns, gamma; alpha is 1."""
    wavelength = 2 * math.pi / theta
    turns = rope.original_length / wavelength
    gamma = 0.0 if turns < 1 else 1.0 if turns > beta else (turns - 1) / (beta - 1)
    return (1 - gamma) * theta / rope.factor + gamma * theta


def llama3(theta: float, rope: Rope) -> float:
    """The three cases of Llama 3.1's own code, by wavelength."""
    wavelength = 2 * math.pi / theta
    if wavelength < rope.original_length / 4:
        return theta
    if wavelength > rope.original_length:
        return theta / rope.factor
    smooth = (rope.original_length / wavelength - 1) / (4 - 1)
    return (1 - smooth) * theta / rope.factor + smooth * theta


def yarn(pair: int, head_dim: int, rope: Rope) -> float:
    def pair_of(turns: float) -> float:
        return head_dim * math.log(rope.original_length / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    low, high = max(math.floor(pair_of(32)), 0), min(math.ceil(pair_of(1)), head_dim - 1)
    kept = 1 - min(max((pair - low) / (high - low), 0), 1)
    theta = rope.base ** (-2 * pair / head_dim)
    return theta / rope.factor * (1 - kept) + theta * kept


def expected(pair: int, head_dim: int, rope: Rope) -> float:
    theta = rope.base ** (-2 * pair / head_dim)
    return {
        "default": lambda: theta,
        "linear": lambda: theta / rope.factor,
        "ntk": lambda: by_parts(theta, rope, 32.0),
        "llama3": lambda: llama3(theta, rope),
        "yarn": lambda: yarn(pair, head_dim, rope),
    }[rope.kind]()


ROPES = [
    (Rope(), 32),
    (Rope("linear", 10000.0, 4.0), 64),
    (Rope("ntk", 10000.0, 8.0, 2048), 64),
    (Rope("llama3", 500000.0, 8.0, 8192), 128),
    (Rope("yarn", 10000.0, 16.0, 4096), 128),
    (Rope("yarn", 500000.0, 128.0, 8192), 128),
]


@pytest.mark.parametrize("rope, head_dim", ROPES)
def test_each_frequency_is_the_formula_of_its_source(rope, head_dim):
    frequencies, _ = rope_frequencies(rope, head_dim)
    wanted = [expected(pair, head_dim, rope) for pair in range(head_dim // 2)]
    torch.testing.assert_close(frequencies, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["ntk", "llama3", "yarn"])
def test_fast_pairs_stay_and_the_slowest_is_interpolated(kind):
    plain, _ = rope_frequencies(Rope(base=500000.0), 128)
    stretched, _ = rope_frequencies(Rope(kind, 500000.0, 32.0, 8192), 128)
    assert stretched[0] == plain[0]
    assert stretched[-1].item() == pytest.approx(plain[-1].item() / 32, rel=1e-12)
    assert (stretched.diff() < 0).all()


@pytest.mark.parametrize("kind", ["default", "linear", "ntk", "llama3", "yarn"])
def test_a_factor_of_one_changes_nothing(kind):
    plain, _ = rope_frequencies(Rope(), 64)
    stretched, scale = rope_frequencies(Rope(kind, factor=1.0, original_length=4096), 64)
    torch.testing.assert_close(stretched, plain, rtol=1e-15, atol=0)
    assert scale == 1.0


def test_only_yarn_scales_the_attention():
    scales = {kind: rope_frequencies(Rope(kind, factor=16.0, original_length=4096), 64)[1] for kind in ("ntk", "yarn")}
    assert scales == {"ntk": 1.0, "yarn": pytest.approx(1.277258872)}


@pytest.mark.parametrize(
    "rope, head_dim, words",
    [
        (Rope("dynamic"), 64, ["model.rope.kind", "dynamic", "yarn"]),
        (Rope("yarn", factor=4.0), 64, ["model.rope.original_length", "yarn", "linear"]),
        (Rope("linear", factor=0.5), 64, ["model.rope.factor", "0.5"]),
        (Rope(), 33, ["model.head_dim", "33"]),
    ],
)
def test_what_cannot_be_computed_is_refused_with_its_field(rope, head_dim, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        rope_frequencies(rope, head_dim)
    assert all(word in str(caught.value) for word in words)


def turned_exactly(position: int, frequency: float) -> tuple[float, float]:
    with localcontext() as context:
        context.prec = 60
        angle = float((Decimal(position) * Decimal(frequency)) % TWO_PI)
    return math.cos(angle), math.sin(angle)


def test_tables_are_exact_to_fp32_at_millions_of_tokens():
    frequencies, scale = rope_frequencies(Rope(), 32)
    positions = torch.tensor([0, 1, 4095, 2**20 + 7, 2**21 - 1, 2**21, 2**26 + 1])
    cos, sin = rotation_tables(frequencies, scale, positions)
    for row, position in enumerate(positions.tolist()):
        for pair, frequency in enumerate(frequencies.tolist()):
            wanted = turned_exactly(position, frequency)
            assert (cos[row, pair].item(), sin[row, pair].item()) == pytest.approx(wanted, abs=1e-7)


def test_the_scale_is_on_cosine_and_sine():
    frequencies, _ = rope_frequencies(Rope(), 8)
    cos, sin = rotation_tables(frequencies, 1.25, torch.arange(5), torch.float64)
    torch.testing.assert_close(torch.complex(cos, sin).abs(), torch.full((5, 4), 1.25, dtype=torch.float64))


def tables(positions, head_dim=8, dtype=torch.float64):
    return rotation_tables(*rope_frequencies(Rope(), head_dim), positions, dtype)


def test_a_turn_is_a_complex_product():
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    positions = torch.tensor([7, 0, 100, 3, 2])
    cos, sin = tables(positions)
    product = torch.complex(x[..., :4], x[..., 4:]) * torch.complex(cos, sin)
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([product.real, product.imag], -1), rtol=1e-14, atol=1e-14)


def test_the_gradient_is_the_turn_back():
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = tables(torch.tensor([5, 1, 9]))
    assert torch.autograd.gradcheck(lambda x: rotate(x, 1.3 * cos, 1.3 * sin), (x,))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 2**20), st.integers(0, 2**20))
def test_only_the_distance_of_two_positions_counts(first, second, shift):
    torch.manual_seed(first)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    near = rotate(q, *tables(torch.tensor([first]))) * rotate(k, *tables(torch.tensor([second])))
    far = rotate(q, *tables(torch.tensor([first + shift]))) * rotate(k, *tables(torch.tensor([second + shift])))
    assert near.sum().item() == pytest.approx(far.sum().item(), abs=1e-8)


def test_positions_come_in_any_order_and_differ_over_the_batch():
    x = torch.randn(2, 3, 6, 8)
    positions = torch.stack([torch.randperm(6) * 1000, torch.arange(6)])
    cos, sin = tables(positions, dtype=torch.float32)
    together = rotate(x, cos.unsqueeze(1), sin.unsqueeze(1))
    for row in range(2):
        for token in range(6):
            alone = rotate(
                x[row : row + 1, :, token : token + 1], *tables(positions[row, token : token + 1], 8, x.dtype)
            )
            assert torch.equal(together[row, :, token], alone[0, :, 0])


def test_bf16_is_rounded_once_and_strided_heads_come_back_contiguous():
    x = torch.randn(1, 50, 4, 8, dtype=torch.bfloat16).transpose(1, 2)
    cos, sin = tables(torch.arange(50), dtype=torch.float32)
    turned = rotate(x, cos, sin)
    assert turned.is_contiguous()
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), cos, sin).bfloat16())
