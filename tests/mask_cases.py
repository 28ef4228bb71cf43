"""Masks and layouts to try: a table with each kind of mask, and what hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from ring_worker.attention.layout import KINDS, Layout
from ring_worker.attention.masks import CAUSAL, FULL, Blocks, Mask

DIAGONAL_AND_FIRST = Blocks(8, 4, tuple(tuple(sorted({0, i, 2 * i, 2 * i + 1})) for i in range(8)))

MASKS = {
    "causal": CAUSAL,
    "full": FULL,
    "window": Mask(window=9),
    "window longer than the sequence": Mask(window=200),
    "bidirectional window": Mask(causal=False, window=7),
    "chunk": Mask(chunk=16),
    "documents": Mask(documents=(0, 5, 6, 40)),
    "full documents": Mask(causal=False, documents=(0, 31)),
    "window, chunk and documents": Mask(window=12, chunk=32, documents=(0, 17)),
    "prefix": Mask(prefix=13),
    "prefixes of documents, and a window": Mask(prefix=(3, 9), documents=(0, 30), window=8),
    "global tokens": Mask(window=6, global_tokens=3),
    "global tokens of documents, and chunks": Mask(window=6, global_tokens=9, documents=(0, 20, 41), chunk=16),
    "blocks": Mask(blocks=DIAGONAL_AND_FIRST),
    "blocks ahead, and rows without keys": Mask(blocks=Blocks(16, 8, ((1, 3), (0, 2, 3), (7,), (0, 6, 7)))),
    "blocks and a window": Mask(window=11, blocks=Blocks(16, 8, ((0,), (0, 2, 3), (1, 4, 5), (0, 6, 7)))),
}
"""For sequences of up to 64 tokens."""


@st.composite
def layouts(draw: st.DrawFn, longest: int = 60, most: int = 9) -> Layout:
    length = draw(st.integers(1, longest))
    return Layout(draw(st.sampled_from(KINDS)), length, draw(st.integers(1, most)), stripe=draw(st.integers(1, 7)))


def inners(layout: Layout) -> st.SearchStrategy[int]:
    """Sizes of inner rings that divide the ranks."""
    return st.sampled_from([n for n in range(1, layout.ranks + 1) if layout.ranks % n == 0])


@st.composite
def masks(draw: st.DrawFn, length: int) -> Mask:
    """Any combination that is not refused."""
    causal, sparse = draw(st.booleans()), draw(st.integers(0, 3)) == 0
    starts = (0, *sorted(s for s in draw(st.sets(st.integers(1, 60), max_size=3)) if s < length))
    return Mask(
        causal=causal,
        window=draw(st.none() | st.integers(1, 70)),
        chunk=draw(st.none() | st.integers(1, 70)),
        documents=starts,
        prefix=draw(_prefixes(len(starts))) if causal else 0,
        global_tokens=draw(st.integers(0, 12)) if causal and not sparse else 0,
        blocks=draw(_blocks(length)) if sparse else None,
    )


def _prefixes(documents: int) -> st.SearchStrategy[int | tuple[int, ...]]:
    one = st.integers(0, 20)
    return one | st.lists(one, min_size=documents, max_size=documents).map(tuple)


@st.composite
def _blocks(draw: st.DrawFn, length: int) -> Blocks:
    query, key = draw(st.integers(1 + length // 6, 20)), draw(st.integers(1, 20))
    keys = st.sets(st.integers(0, (length - 1) // key), max_size=5).map(lambda found: tuple(sorted(found)))
    rows = -(-length // query)
    return Blocks(query, key, tuple(draw(st.lists(keys, min_size=rows, max_size=rows))))
