"""Which keys a query may see, as intervals of positions.

A query at position q attends to the keys `[lo(q), hi(q))`: causal, full, sliding window, chunked-local, packed
documents and prefix-LM, and any of them together (the largest of the los, the smallest of the his). Global tokens add
a second interval below the first. A block-sparse list of key blocks cuts the first one into several. So a mask is a few
*terms*, each one interval for every query, disjoint from the others; everything behind this module knows terms only and
no mask by name. A combination that is not such a union is refused here, never approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Term = tuple[Positions, Positions]
"""(lo, hi) of the half-open interval that each query sees; hi = lo for none."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Query block i, tokens `[i * query, (i + 1) * query)`, sees the key blocks `seen[i]`, each of `key` tokens."""

    query: int
    key: int
    seen: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if self.query < 1 or self.key < 1:
            raise ValueError(f"mask: blocks of {self.query} queries and {self.key} keys must be at least 1 token")
        for index, keys in enumerate(self.seen):
            if any(b <= a for a, b in pairwise((-1, *keys))):
                raise ValueError(f"mask: key blocks of query block {index} must ascend from 0, not {list(keys[:8])}")

    def intervals(self) -> tuple[Positions, Positions]:
        """(start, stop), each [query blocks, most intervals]: neighbouring key blocks joined; 0 and 0 where none is."""
        joined = [list(_joined(keys)) for keys in self.seen]
        bounds = np.zeros((2, len(joined), max(map(len, joined), default=0)), dtype=np.int64)
        for row, intervals in enumerate(joined):
            for column, interval in enumerate(intervals):
                bounds[:, row, column] = interval
        return bounds[0] * self.key, bounds[1] * self.key


def _joined(blocks: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    start = None
    for block, after in pairwise((*blocks, None)):
        start = block if start is None else start
        if block is not None and after != block + 1:
            yield start or 0, block + 1
            start = None


@dataclass(frozen=True, slots=True)
class Mask:
    """The keys that a query sees. The default is causal. All spans in tokens.

    `window`: keys at most window - 1 away, behind the query, and before it too unless causal. `chunk`: chunks that do
    not see each other, counted from position 0. `documents`: positions at which packed documents start, ascending, the
    first 0. `prefix`: the first tokens of each document (without documents, of the sequence), which are seen from
    everywhere in it though causal: one number, or one a document. `global_tokens`: as many first tokens of its document
    that a causal query sees beyond its window and chunk. `blocks`: only keys in these blocks.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    documents: tuple[int, ...] = ()
    prefix: int | tuple[int, ...] = 0
    global_tokens: int = 0
    blocks: Blocks | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        for name, tokens in (("window", self.window), ("chunk", self.chunk)):
            if tokens is not None and tokens < 1:
                raise ValueError(f"mask: {name} is {tokens} tokens, but must be at least 1")
        if self.documents and (self.documents[0] != 0 or any(np.diff(self.documents) <= 0)):
            raise ValueError(f"mask: documents must ascend from 0, not {list(self.documents[:8])}")
        if np.min(self.prefix) < 0 or self.global_tokens < 0:
            raise ValueError(f"mask: prefix {self.prefix} and global_tokens {self.global_tokens} must not be negative")
        self._check_combination()
        spans = (self.causal, self.window, self.chunk, self.prefix, self.global_tokens)
        object.__setattr__(self, "_hash", hash((spans, self.documents, self.blocks)))

    def __hash__(self) -> int:
        """Once and for all: schedules are looked up by it in every layer, and ten thousand documents are long."""
        return self._hash

    def _check_combination(self) -> None:
        if isinstance(self.prefix, tuple) and len(self.prefix) != max(1, len(self.documents)):
            raise ValueError(f"mask: {len(self.prefix)} prefixes for {max(1, len(self.documents))} documents")
        if not self.causal and (np.any(self.prefix) or self.global_tokens):
            raise ValueError("mask: prefix and global_tokens add keys to a causal mask; without causal leave them out")
        if self.global_tokens and self.blocks:
            raise ValueError("mask: global_tokens with blocks: list the key blocks that hold them in blocks instead")

    def terms(self, queries: Positions, length: int) -> list[Term]:
        """The terms at these query positions, each as long as `queries`, in a sequence of `length` tokens."""
        lo, hi = self._interval(queries, length)
        if self.blocks:
            return list(self._in_blocks(queries, lo, hi, length))
        if not self.global_tokens:
            return [(lo, hi)]
        start, _, _ = self._document(queries, length)
        return [(lo, hi), (start, np.minimum(start + self.global_tokens, lo))]

    def _interval(self, queries: Positions, length: int) -> Term:
        start, stop, prefix = self._document(queries, length)
        lo, hi = start, np.minimum(self._ahead(queries, length, start + prefix), stop)
        if self.window is not None:
            lo = np.maximum(lo, queries - self.window + 1)
        if self.chunk is not None:
            first = queries // self.chunk * self.chunk
            lo, hi = np.maximum(lo, first), np.minimum(hi, first + self.chunk)
        return lo, hi

    def _ahead(self, queries: Positions, length: int, prefix_end: Positions) -> Positions:
        if self.causal:
            return np.maximum(queries + 1, prefix_end)
        return np.full_like(queries, length) if self.window is None else queries + self.window

    def _document(self, queries: Positions, length: int) -> tuple[Positions, Positions, Positions]:
        """(start, stop, prefix) of the document of each query."""
        starts = np.asarray(self.documents or (0,), dtype=np.int64)
        index = np.searchsorted(starts, queries, side="right") - 1
        prefix = np.broadcast_to(np.asarray(self.prefix, dtype=np.int64), starts.shape)
        return starts[index], np.minimum(np.append(starts[1:], length)[index], length), prefix[index]

    def _in_blocks(self, queries: Positions, lo: Positions, hi: Positions, length: int) -> Iterator[Term]:
        assert self.blocks
        if len(self.blocks.seen) * self.blocks.query < length:
            covered = f"{len(self.blocks.seen)} query blocks of {self.blocks.query} tokens"
            raise ValueError(f"mask: blocks has {covered}, fewer than the sequence's {length} tokens")
        starts, stops = self.blocks.intervals()
        block = queries // self.blocks.query
        for column in range(starts.shape[1]):
            low, high = np.maximum(lo, starts[block, column]), np.minimum(hi, stops[block, column])
            yield low, np.maximum(low, high)

    def breaks(self, length: int) -> Positions:
        """Positions, ascending from 0, between which every bound of every term is linear, with a slope of 0 or 1."""
        starts = [np.asarray(self.documents or (0,), dtype=np.int64)]
        if self.chunk is not None:
            starts.append(np.arange(0, length, self.chunk))
        regions = np.concatenate(starts)
        edges = [regions, *self._edges_of(np.append(regions, length), length)]
        if self.blocks:
            borders = np.arange(0, length + self.blocks.key, self.blocks.key)
            edges += [np.arange(0, length, self.blocks.query), borders, *self._edges_of(borders, length)]
        found = np.concatenate(edges)
        around = np.unique(np.concatenate([found - 1, found, found + 1, [0]]))
        return around[(around >= 0) & (around < length)]

    def _edges_of(self, borders: Positions, length: int) -> Iterator[Positions]:
        """Where bounds that depend on the distance from a border bend."""
        window = self.window or 0
        if self.window is not None:
            yield from (borders + window, borders - window, borders + self.global_tokens + window)
        if np.any(self.prefix):
            start, _, prefix = self._document(np.minimum(borders, length - 1), length)
            yield start + prefix


CAUSAL = Mask()
FULL = Mask(causal=False)
