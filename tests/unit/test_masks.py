"""Masks: by their own words, row by row; what cannot be computed is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from mask_cases import MASKS, masks
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import Blocks, Mask
from ring_worker.attention.ring import Ring


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mask, int]:
    length = draw(st.integers(1, 60))
    return draw(masks(length)), length


@settings(max_examples=80)
@given(cases())
def test_the_terms_of_a_row_are_disjoint_and_exactly_what_it_sees(case: tuple[Mask, int]) -> None:
    mask, length = case
    counted = np.zeros((length, length), dtype=int)
    for lo, hi in mask.terms(np.arange(length), length):
        for row in range(length):
            counted[row, lo[row] : hi[row]] += 1
    assert (counted == oracle.visible(mask, length).numpy()).all()


@settings(max_examples=80)
@given(cases())
def test_bounds_move_by_none_or_one_a_row_between_breaks(case: tuple[Mask, int]) -> None:
    mask, length = case
    breaks = mask.breaks(length)
    inside = np.setdiff1d(np.arange(1, length), breaks)
    for bounds in (bound for term in mask.terms(np.arange(length), length) for bound in term):
        slopes = np.diff(bounds)
        assert np.isin(slopes[inside - 1], (0, 1)).all()
        bends = np.flatnonzero(np.diff(slopes)) + 1
        assert not np.intersect1d(bends, np.intersect1d(inside, inside - 1)).size


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equal_masks_are_one_key(mask: Mask) -> None:
    twin = Mask(**{name: getattr(mask, name) for name in Mask.__dataclass_fields__ if name != "_hash"})
    assert (twin, hash(twin)) == (mask, hash(mask))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Mask(window=0), "mask: window is 0 tokens, but must be at least 1"),
        (lambda: Mask(chunk=-3), "mask: chunk is -3 tokens"),
        (lambda: Mask(documents=(1, 2)), "documents must ascend from 0"),
        (lambda: Mask(documents=(0, 4, 4)), "documents must ascend from 0"),
        (lambda: Mask(prefix=-1), "prefix -1 and global_tokens 0 must not be negative"),
        (lambda: Mask(documents=(0, 4), prefix=(2, -1)), "must not be negative"),
        (lambda: Mask(global_tokens=-2), "global_tokens -2 must not be negative"),
        (lambda: Mask(documents=(0, 4), prefix=(1, 2, 3)), "3 prefixes for 2 documents"),
        (lambda: Mask(prefix=(1, 2)), "2 prefixes for 1 documents"),
        (lambda: Mask(causal=False, prefix=3), "without causal leave them out"),
        (lambda: Mask(causal=False, global_tokens=3), "without causal leave them out"),
        (lambda: Mask(global_tokens=3, blocks=Blocks(4, 4, ((0,),))), "list the key blocks that hold them in blocks"),
        (lambda: Blocks(0, 4, ()), "blocks of 0 queries and 4 keys must be at least 1 token"),
        (lambda: Blocks(4, 4, ((0, 2), (2, 1))), "key blocks of query block 1 must ascend from 0, not"),
        (lambda: Blocks(4, 4, ((-1, 2),)), "key blocks of query block 0 must ascend from 0"),
        (lambda: Blocks(4, 4, ((1, 1),)), "key blocks of query block 0 must ascend"),
        (
            lambda: Mask(blocks=Blocks(4, 4, ((0,), (1,)))).terms(np.arange(9), 9),
            "2 query blocks of 4 tokens, fewer than the sequence's 9 tokens",
        ),
        (lambda: Layout("diagonal", 4, 2), "not one of zigzag, contiguous, striped"),
        (lambda: Layout("zigzag", 0, 2), "length 0"),
        (lambda: Ring(Layout("zigzag", 4, 2)), "the transport has 1 ranks, the layout 2"),
        (lambda: Ring(Layout("zigzag", 4, 1), inner=2), "inner rings of 2 ranks do not divide 1 ranks"),
        (lambda: Ring(Layout("zigzag", 4, 1), rotate="values"), "rotate 'values' is none of auto, keys, queries"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
