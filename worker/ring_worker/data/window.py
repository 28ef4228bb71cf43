"""One sequence of a stream, of which a rank reads only the positions that it works on.

The label of a position is the token after it. A document's first token, BOS, is predicted by nothing: its label is
`IGNORED`, as is the label of a position behind the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ring_worker.data.streams import TokenStream

IGNORED = -100  # torch's default `ignore_index`

Ids: TypeAlias = npt.NDArray[np.int64]
Ranges: TypeAlias = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """`length` tokens of `stream` from `start` on.

    `wraps`: whether the stream goes round in a circle, as training does; otherwise there is padding behind its end
    (token `bos`, label IGNORED). `document_starts`: positions in the window at which a document begins; 0 always first.
    """

    stream: TokenStream
    start: int
    length: int
    bos: int
    wraps: bool

    @property
    def document_starts(self) -> tuple[int, ...]:
        inside = [at + p - first for at, first, last in self._parts(0, self.length) for p in self._starts(first, last)]
        return (0, *(position for position in inside if position > 0))

    def tokens(self, ranges: Ranges) -> Ids:
        """Tokens at half-open ranges of positions in the window, one after the other; nothing else is read."""
        return _concatenate([self._read(start, stop) for start, stop in ranges])

    def labels(self, ranges: Ranges) -> Ids:
        """Labels at half-open ranges of positions: the token at position + 1, or IGNORED."""
        return _concatenate([self._read_labels(start, stop) for start, stop in ranges])

    def _read(self, start: int, stop: int) -> Ids:
        tokens = np.full(stop - start, self.bos, dtype=np.int64)
        for at, first, last in self._parts(start, stop):
            tokens[at : at + last - first] = self.stream.read(first, last)
        return tokens

    def _read_labels(self, start: int, stop: int) -> Ids:
        labels = np.full(stop - start, IGNORED, dtype=np.int64)
        for at, first, last in self._parts(start + 1, stop + 1):
            labels[at : at + last - first] = self.stream.read(first, last)
            for position in self._starts(first, last):
                labels[at + position - first] = IGNORED
        return labels

    def _starts(self, first: int, last: int) -> Sequence[int]:
        return self.stream.document_starts(first, last)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Ranges of the stream behind positions start .. stop, each with its place from `start` on."""
        total = self.stream.length
        position, end = self.start + start, self.start + stop
        while position < end and (self.wraps or position < total):
            first = position % total
            last = min(first + end - position, total)
            yield position - self.start - start, first, last
            position += last - first


def _concatenate(parts: list[Ids]) -> Ids:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
