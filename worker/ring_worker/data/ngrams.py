"""What counting alone achieves on the held-out text: the bars that a model's bits per byte are held against.

In bytes, whatever the tokenizer, so that figures of different tokenizers compare. The probabilities come from the
training text, with additive smoothing; a document's first byte follows BOS. Every held-out byte is counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SMOOTHING = 0.01  # added to every count
BYTES = 256
BOS = 256  # the context of a document's first byte
CONTEXTS = BYTES + 1

BigramCounts = npt.NDArray[np.int64]  # [CONTEXTS, BYTES]: how often the byte follows the context

_BLOCK_BYTES = 1 << 20


def no_counts() -> BigramCounts:
    return np.zeros((CONTEXTS, BYTES), dtype=np.int64)


class BigramCounter:
    """Counts of many documents, in blocks, since a table for each small one would cost more than the counting."""

    def __init__(self) -> None:
        self._counts = no_counts()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def add(self, text: bytes) -> None:
        self._waiting.append(text)
        self._waiting_bytes += len(text)
        if self._waiting_bytes >= _BLOCK_BYTES:
            self._count_waiting()

    def counts(self) -> BigramCounts:
        self._count_waiting()
        return self._counts

    def _count_waiting(self) -> None:
        if self._waiting:
            self._counts += _count(self._waiting)
        self._waiting, self._waiting_bytes = [], 0


def _count(texts: Sequence[bytes]) -> BigramCounts:
    """Documents one behind the other, BOS before each; the pairs whose second is BOS fall away."""
    symbols = np.empty(sum(map(len, texts)) + len(texts), dtype=np.uint32)
    position = 0
    for text in texts:
        symbols[position] = BOS
        symbols[position + 1 : position + 1 + len(text)] = np.frombuffer(text, dtype=np.uint8)
        position += 1 + len(text)
    pairs = symbols[:-1] * CONTEXTS + symbols[1:]
    return np.bincount(pairs, minlength=CONTEXTS * CONTEXTS).reshape(CONTEXTS, CONTEXTS)[:, :BYTES]


def pack_counts(counts: BigramCounts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs that occur, and how often: few of the 65,792."""
    pairs = np.flatnonzero(counts)
    return pairs, counts.reshape(-1)[pairs]


def unpack_counts(pairs: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> BigramCounts:
    table = no_counts()
    table.reshape(-1)[pairs] = counts
    return table


@dataclass(frozen=True, slots=True)
class CountingFigures:
    """Bits per byte of the held-out text."""

    unigram: float
    bigram: float


def counting_figures(training: BigramCounts, held_out: BigramCounts) -> CountingFigures:
    """Mean of -log2 P(byte | context), over the held-out bytes; at least one of them."""
    unigram = (training.sum(axis=0) + SMOOTHING) / (training.sum() + SMOOTHING * BYTES)
    bigram = (training + SMOOTHING) / (training.sum(axis=1, keepdims=True) + SMOOTHING * BYTES)
    total = held_out.sum()
    return CountingFigures(
        unigram=float(-(held_out.sum(axis=0) * np.log2(unigram)).sum() / total),
        bigram=float(-(held_out * np.log2(bigram)).sum() / total),
    )
