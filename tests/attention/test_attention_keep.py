"""Ring attention under activation checkpointing and under torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ring_worker.attention.function import ring_attention
from ring_worker.attention.keep import keep_output
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL, Mask
from ring_worker.attention.ring import Ring

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, TOKENS = 16, 48


class Block(nn.Module):
    """A projection, attention with two query heads to a key head, and a projection back."""

    def __init__(self, ring: Ring, mask: Mask = CAUSAL) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ring, self.mask = ring, mask
        self.qkv, self.out = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.sinks = nn.Parameter(torch.tensor([0.5, -0.5]))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.transpose(1, 2) for y in self.qkv(x).unflatten(-1, (4, 8)).split([2, 1, 1], dim=2))
        o = ring_attention(q, k, v, self.ring, self.mask, sinks=self.sinks)
        return x + self.out(o.transpose(1, 2).flatten(2))


def gradients(block: Block, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    x = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = run(run(x))  # two layers of the same weights: outputs are kept and taken back in order
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])]


@pytest.mark.parametrize("mask", [CAUSAL, Mask(causal=False), Mask(window=9), Mask(documents=(0, 11, 30))], ids=str)
@pytest.mark.parametrize("keep", ["all", "late"])
def test_a_kept_output_gives_the_same_gradients(keep: str, mask: Mask) -> None:
    block = Block(Ring(Layout("zigzag", TOKENS, 1)), mask)
    plain = gradients(block, block)
    kept = gradients(block, lambda x: checkpoint(block, x, use_reentrant=False, context_fn=keep_output(keep)))
    for a, b in zip(plain, kept, strict=True):
        assert torch.equal(a, b) if keep == "all" else torch.allclose(a, b, rtol=1e-5, atol=1e-5)


EARLY = TOKENS // 2 * (TOKENS // 2 + 1) / (TOKENS * (TOKENS + 1))  # of a causal mask's pairs


@pytest.mark.parametrize("keep, again", [(None, 1.0), ("all", 0.0), ("late", EARLY)])
def test_what_is_kept_is_not_computed_again(keep: str | None, again: float) -> None:
    block = Block(Ring(Layout("zigzag", TOKENS, 1)))
    gradients(block, block)
    once = block.ring.meter.take()[0].flops
    options = {"context_fn": keep_output(keep)} if keep else {}
    gradients(block, lambda x: checkpoint(block, x, use_reentrant=False, **options))
    forward, backward = block.ring.meter.take()
    assert forward.flops == pytest.approx(once * (1 + again))
    assert backward.flops == once * 2.5


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="'early' is none of all, late"):
        keep_output("early")


def test_a_compiled_module_gives_the_same_numbers_around_a_break() -> None:
    block = Block(Ring(Layout("zigzag", TOKENS, 1)))
    plain = gradients(block, block)
    compiled = gradients(block, torch.compile(block, backend="aot_eager"))
    for a, b in zip(plain, compiled, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_graph_without_a_break_is_refused() -> None:
    block = Block(Ring(Layout("zigzag", TOKENS, 1)))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="ring_attention"):
        torch.compile(block, backend="aot_eager", fullgraph=True)(torch.zeros(1, TOKENS, WIDTH))
