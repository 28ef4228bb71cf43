"""What a rank reads of a window: its place's tokens, or its part of them, exactly as attention cuts them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.attention.layout import KINDS, Layout, Range
from ring_worker.attention.ring import part_sizes
from ring_worker.shard import Sharder, ranges_of


@pytest.mark.parametrize(
    "layout, place, members, expected",
    [
        (Layout("zigzag", 16, 2), 0, 1, [[(0, 4), (12, 16)]]),
        (Layout("zigzag", 16, 2), 0, 2, [[(0, 4)], [(12, 16)]]),
        (Layout("zigzag", 18, 2), 0, 2, [[(0, 4)], [(13, 18)]]),
        (Layout("zigzag", 24, 2), 1, 4, [[(6, 9)], [(9, 12)], [(12, 15)], [(15, 18)]]),
        (Layout("zigzag", 16, 2), 0, 3, [[(0, 2)], [(2, 4), (12, 13)], [(13, 16)]]),
        (Layout("striped", 16, 2, stripe=4), 1, 3, [[(4, 6)], [(6, 8), (12, 13)], [(13, 16)]]),
        (Layout("contiguous", 3, 1), 0, 4, [[], [(0, 1)], [(1, 2)], [(2, 3)]]),
    ],
)
def test_members_of_a_place_share_its_tokens_in_their_order(layout, place, members, expected):
    found = [[tuple(r) for r in ranges_of(layout, place, member, members)] for member in range(members)]
    assert found == expected


@given(st.sampled_from(KINDS), st.integers(1, 200), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9))
def test_the_parts_of_a_place_are_those_that_attention_puts_together(kind, length, ranks, members, stripe):
    layout = Layout(kind, length, ranks, stripe)
    for place in range(ranks):
        parts = [ranges_of(layout, place, member, members) for member in range(members)]
        positions = [np.concatenate([np.arange(0), *(np.arange(*r) for r in part)]) for part in parts]
        assert [len(p) for p in positions] == part_sizes(layout.size(place), members)
        assert np.concatenate(positions).tolist() == layout.positions(place).tolist()
        assert all(a.stop <= b.start for part in parts for a, b in itertools.pairwise(part))


class _Window:
    """Token i is i, its label i + 1."""

    document_starts = (0, 5, 13)

    def tokens(self, ranges):
        return np.concatenate([np.arange(*r) for r in ranges])

    def labels(self, ranges):
        return self.tokens(ranges) + 1


@pytest.mark.parametrize(
    "packing, positions, documents", [("documents", [2, 3, 4, 0, 0, 1], (0, 5, 13)), ("concatenate", None, ())]
)
def test_tokens_labels_and_positions_go_through_the_same_ranges(packing, positions, documents):
    ranges = (Range(2, 6), Range(13, 15))
    shard = Sharder(ranges, packing, torch.device("cpu")).shard(_Window())
    own = [2, 3, 4, 5, 13, 14]
    assert shard.tokens.tolist() == [own]
    assert shard.labels.tolist() == [token + 1 for token in own]
    assert shard.positions.tolist() == (positions or own)
    assert shard.documents == documents
