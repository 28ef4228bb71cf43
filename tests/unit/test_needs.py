"""How many tokens travel: what the masks and layouts promise, counted."""

from __future__ import annotations

from collections import Counter

import pytest

from mask_cases import MASKS
from parcel_walk import Walk, plans_of
from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Blocks, Mask
from ring_worker.attention.needs import Asked, key_needs


def sent(layout: Layout, mask: Mask, inner: int | None = None) -> int:
    """Tokens that all ranks send in a forward pass."""
    return sum(plan.sent for plan in plans_of(Asked(layout, mask), inner or layout.ranks))


def asked_of(layout: Layout, mask: Mask) -> list[dict[int, int]]:
    """[rank]: how many tokens it asks of each other rank."""
    needs = key_needs(Asked(layout, mask))
    found = [{s: sum(r.size for r in need.of(s)) for s in range(layout.ranks)} for need in needs]
    return [{s: n for s, n in each.items() if n and s != rank} for rank, each in enumerate(found)]


@pytest.mark.parametrize("ranks", [2, 3, 4, 8, 16])
def test_causal_zigzag_sends_three_quarters_of_a_plain_ring(ranks: int) -> None:
    length = 2 * ranks * 24
    plain = (ranks - 1) * length  # everybody's tokens to everybody else
    assert sent(Layout("zigzag", length, ranks), FULL) == plain
    assert 4 * sent(Layout("zigzag", length, ranks), CAUSAL) == 3 * plain


@pytest.mark.parametrize("ranks", [2, 4, 8, 32])
@pytest.mark.parametrize("window", [2, 9, 16])
def test_a_window_no_longer_than_a_chunk_asks_two_neighbours_at_most(ranks: int, window: int) -> None:
    for kind, chunks in (("zigzag", 2 * ranks), ("contiguous", ranks)):
        for rank, asked in enumerate(asked_of(Layout(kind, 16 * chunks, ranks), Mask(window=window))):
            neighbours = (rank - 1, rank + 1) if kind == "zigzag" else (rank - 1,)
            assert set(asked) <= set(neighbours)
            assert all(tokens == window - 1 for tokens in asked.values())


@pytest.mark.parametrize("ranks", [2, 4, 8, 32])
def test_a_bidirectional_window_asks_the_ranks_before_and_behind(ranks: int) -> None:
    for rank, asked in enumerate(asked_of(Layout("contiguous", 16 * ranks, ranks), Mask(causal=False, window=9))):
        assert asked == {n: 8 for n in (rank - 1, rank + 1) if 0 <= n < ranks}


@pytest.mark.parametrize("kind, chunk", [("zigzag", 16), ("zigzag", 8), ("contiguous", 32), ("striped", 8)])
@pytest.mark.parametrize("causal", [True, False])
def test_aligned_chunks_send_nothing(kind: str, chunk: int, causal: bool) -> None:
    assert sent(Layout(kind, 16 * 8, 4, stripe=16), Mask(causal=causal, chunk=chunk)) == 0


@pytest.mark.parametrize(
    "documents, tokens",
    [
        ((0, 32, 64, 96), 0),  # borders of ranks are borders of documents
        ((0, 10, 20, 40, 64, 70, 96), 12),  # one crosses a border: its 12 tokens before it
        ((0, 30, 64), 2 + 32),
        ((0, 20, 100), 12 + (12 + 32) + (12 + 32 + 32)),  # one over all four ranks
    ],
)
def test_packed_documents_send_what_crosses_a_border(documents: tuple[int, ...], tokens: int) -> None:
    assert sent(Layout("contiguous", 128, 4), Mask(documents=documents)) == tokens


def test_only_blocks_that_somebody_reads_are_sent() -> None:
    """Ranks of 16 tokens, blocks of 8: rank 0 owns key blocks 0 and 1, and so on."""
    seen = ((0,), (1, 4), (2,), (0, 3), (4,), (0, 5), (6,), (0, 7))
    layout, mask = Layout("contiguous", 64, 4), Mask(causal=False, blocks=Blocks(8, 8, seen))
    assert asked_of(layout, mask) == [{2: 8}, {0: 8}, {0: 8}, {0: 8}]
    assert sent(layout, mask) == 4 * 8


def test_rows_without_keys_ask_for_none_though_a_window_moves_over_them() -> None:
    """The bounds of an empty row lie wherever the window is; they must not be taken for keys."""
    mask = Mask(window=1, blocks=Blocks(16, 8, ((), (2, 3), (), ())))
    assert asked_of(Layout("contiguous", 64, 4), mask) == [{}] * 4
    needs = key_needs(Asked(Layout("contiguous", 64, 4), mask))
    assert [need.of(rank) for rank, need in enumerate(needs)] == [(), ((0, 16),), (), ()]


def test_a_global_token_travels_once_to_each_rank_and_no_key_between() -> None:
    asked = asked_of(Layout("contiguous", 64, 4), Mask(window=5, global_tokens=3))
    assert asked == [{}, {0: 3 + 4}, {0: 3, 1: 4}, {0: 3, 2: 4}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_ring_of_rings_sends_as_many_tokens(mask: Mask, kind: str) -> None:
    layout = Layout(kind, 61, 8, stripe=5)
    assert {sent(layout, mask, inner) for inner in (1, 2, 4)} == {sent(layout, mask)}


def crossing(layout: Layout, mask: Mask, inner: int) -> tuple[int, int]:
    """(tokens that go from one inner ring to another, the fewest that must)."""
    across = _across(layout, mask, inner, inner)
    readers = key_needs(Asked(layout, mask))
    entering = {
        (token, source, rank // inner)
        for rank, need in enumerate(readers)
        for source in range(layout.ranks)
        if source // inner != rank // inner
        for r in need.of(source)
        for token in range(*r)
    }
    return across, len(entering)


@pytest.mark.parametrize("ranks, inner", [(4, 2), (8, 2), (8, 4), (9, 3)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", [CAUSAL, FULL], ids=["causal", "full"])
def test_in_a_ring_of_rings_every_token_enters_a_foreign_ring_once(
    mask: Mask, kind: str, ranks: int, inner: int
) -> None:
    """A plain ring over the same links carries some of them across again and again."""
    layout = Layout(kind, 12 * ranks, ranks, stripe=3)
    across, least = crossing(layout, mask, inner)
    assert across == least
    if kind != "contiguous" or mask == FULL:
        assert across < _across(layout, mask, ranks, inner)


def _across(layout: Layout, mask: Mask, ring: int, group: int) -> int:
    """Tokens that rings of `ring` ranks carry from one group of ranks to another."""
    walk = Walk(plans_of(Asked(layout, mask), ring), [layout.size(rank) for rank in range(layout.ranks)])
    walk.run()
    links = Counter(walk.keys.crossing) + Counter(walk.outer_keys.crossing)
    return sum(n for (a, b), n in links.items() if a // group != b // group)
