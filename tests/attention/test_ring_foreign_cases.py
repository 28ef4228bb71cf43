"""What other libraries test for context parallelism, at a smaller scale, with gradients and against fp64.

Masks and shapes, in our own terms, of TransformerEngine's `test_attention_with_cp.py`, MagiAttention's
`test_pipeline.py` and `test_dist_attn.py`, and ring-flash-attention's `test_*_func.py`, their lengths divided by about
32 and their heads by 4. Windows there are without the query itself, so one more here. Padding behind packed documents
is a document of its own. Several sinks a head are one, their log-sum-exp. What they test and these masks cannot say:
additive biases, causal masks aligned to the end of a key range, and bands that are shifted or mirrored in a part of the
sequence; such a mask is refused or cannot be written.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import oracle
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL, FULL, Blocks, Mask
from virtual_ring import ring_and_gradients

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Case:
    """Heads, key heads, D and E; `sinks` a head."""

    mask: Mask
    length: int = 128
    heads: tuple[int, int] = (3, 3)
    sizes: tuple[int, int] = (8, 8)
    sinks: tuple[float, ...] = ()


def block_causal(documents: tuple[tuple[int, int], ...], block: int, total: int) -> Blocks:
    """Documents of (first, last) blocks; a block sees those of its document up to its own."""
    rows = {row: tuple(range(first, row + 1)) for first, last in documents for row in range(first, last + 1)}
    return Blocks(block, block, tuple(rows[row] for row in range(-(-total // block))))


TRANSFORMER_ENGINE = {
    "causal": Case(CAUSAL),
    "full": Case(FULL),
    "causal window": Case(Mask(window=17)),
    "window both ways": Case(Mask(causal=False, window=17)),
    "grouped, causal": Case(CAUSAL, heads=(8, 1)),
    "grouped, full": Case(FULL, heads=(6, 1)),
    "grouped, short causal window": Case(Mask(window=5), heads=(8, 1)),
    "grouped, window both ways": Case(Mask(causal=False, window=17), heads=(6, 1)),
    "latent, causal": Case(CAUSAL, heads=(16, 16), sizes=(12, 8)),
    "latent, full": Case(FULL, sizes=(12, 8)),
    "latent, causal window": Case(Mask(window=17), sizes=(12, 8)),
    "latent, window both ways": Case(Mask(causal=False, window=17), sizes=(12, 8)),
    "values half as large": Case(CAUSAL, sizes=(8, 4)),
    "one more in the denominator": Case(CAUSAL, heads=(8, 1), sinks=(0.0,)),
    "learnable sinks": Case(CAUSAL, heads=(8, 1), sinks=(0.7,)),
    "learnable sinks, short window": Case(Mask(window=5), heads=(8, 8), sinks=(0.7,)),
    "large heads": Case(CAUSAL, 32, (4, 4), (32, 32)),
    "large heads, window": Case(Mask(window=5), 32, (4, 4), (32, 32)),
    "packed and padded": Case(Mask(documents=(0, 50, 61, 117)), heads=(8, 1)),
    "packed and padded, full": Case(Mask(causal=False, documents=(0, 50, 61, 117))),
    "packed and padded, window": Case(Mask(window=5, documents=(0, 50, 61, 117)), heads=(8, 1)),
}
MAGI = {
    "full with a sink": Case(FULL, 112, (2, 2), sinks=(0.3,)),
    "full, in groups": Case(FULL, 112, (8, 2)),
    "full documents": Case(Mask(causal=False, documents=(0, 16, 32, 48, 64, 80)), 96, (8, 2)),
    "full documents, the last longer": Case(Mask(causal=False, documents=(0, 13, 26, 38, 51, 64, 77)), 105, (2, 2)),
    "causal by blocks in documents, four sinks": Case(
        Mask(causal=False, blocks=block_causal(((0, 3), (4, 5), (6, 7)), 16, 120)),
        120,
        (8, 2),
        sinks=(0.1, -2, 1, 0),
    ),
    "causal by blocks, documents of equal length": Case(
        Mask(causal=False, blocks=block_causal(((0, 3), (4, 5)), 16, 96)), 96, (2, 2)
    ),
    "full, in small pieces": Case(Mask(causal=False, blocks=Blocks(4, 8, (tuple(range(8)),) * 16)), 64, (8, 2)),
}
RING_FLASH_ATTENTION = {
    "causal, five heads": Case(CAUSAL, 239, (5, 5)),
    "full, five heads": Case(FULL, 239, (5, 5)),
    "documents that cross ranks": Case(Mask(documents=(0, 4, 39)), 132, (5, 5)),
    "full documents that cross ranks": Case(Mask(causal=False, documents=(0, 4, 39)), 132, (5, 5)),
    "two tokens a rank": Case(Mask(documents=(0, 7, 14)), 16, (5, 5)),
}
CASES = {
    f"{library}: {name}": case
    for library, cases in (
        ("TransformerEngine", TRANSFORMER_ENGINE),
        ("MagiAttention", MAGI),
        ("ring-flash-attention", RING_FLASH_ATTENTION),
    )
    for name, case in cases.items()
}
RINGS = [
    (Layout("zigzag", 1, 2), {}),
    (Layout("zigzag", 1, 3), {"rotate": "queries"}),
    (Layout("zigzag", 1, 4), {"inner": 2}),
    (Layout("contiguous", 1, 5), {}),
    (Layout("striped", 1, 6, stripe=1), {"inner": 3}),
    (Layout("striped", 1, 7, stripe=16), {}),
    (Layout("zigzag", 1, 8), {"inner": 4, "rotate": "queries"}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_others_test(case: Case, dtype: torch.dtype) -> None:
    """Errors at most a fourth above those of one rank, in a ring of two to eight."""
    make = torch.Generator().manual_seed(case.length)
    (heads, groups), (width, value) = case.heads, case.sizes
    shapes = ((heads, width), (groups, width), (groups, value), (heads, value))
    tensors = [torch.randn((2, x, case.length, size), generator=make).to(dtype) for x, size in shapes]
    sinks = torch.full((heads,), float(torch.tensor(case.sinks).logsumexp(0))) if case.sinks else None
    expected = oracle.attention_and_gradients(*tensors, case.mask, sinks=sinks)

    def errors(layout: Layout, **options: object) -> list[float]:
        found = ring_and_gradients(tensors, case.mask, layout, sinks=sinks, **options)
        return [float((a.double() - b).abs().max()) for a, b in zip(found, expected, strict=True)]

    alone = errors(Layout("zigzag", case.length, 1))
    assert max(alone) < (1e-4 if dtype == torch.float32 else 0.1)
    for ring, options in RINGS:
        found = errors(Layout(ring.kind, case.length, ring.ranks, ring.stripe), **options)
        assert all(b <= 1.25 * a + 1e-5 for a, b in zip(alone, found, strict=True)), (ring, options, alone, found)
