"""The figures of counting, against a slow direct computation over the documents."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring_worker.data import ngrams
from ring_worker.data.ngrams import BOS, SMOOTHING, BigramCounter, counting_figures


def slow_figures(training: list[bytes], held_out: list[bytes]) -> tuple[float, float]:
    pairs = Counter((c, b) for text in training for c, b in zip([BOS, *text], text, strict=False))
    contexts, singles = Counter[int](), Counter[int]()
    for (context, byte), count in pairs.items():
        contexts[context] += count
        singles[byte] += count
    unigram = bigram = 0.0
    for text in held_out:
        for context, byte in zip([BOS, *text], text, strict=False):
            unigram -= math.log2((singles[byte] + SMOOTHING) / (singles.total() + 256 * SMOOTHING))
            bigram -= math.log2((pairs[context, byte] + SMOOTHING) / (contexts[context] + 256 * SMOOTHING))
    total = sum(map(len, held_out))
    return unigram / total, bigram / total


def counts(texts: list[bytes]) -> ngrams.BigramCounts:
    counter = BigramCounter()
    for text in texts:
        counter.add(text)
    return counter.counts()


documents = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8)


@given(training=documents, held_out=documents)
@settings(max_examples=50, deadline=None)
def test_figures_are_those_of_a_direct_count(training: list[bytes], held_out: list[bytes]) -> None:
    figures = counting_figures(counts(training), counts(held_out))
    assert (figures.unigram, figures.bigram) == pytest.approx(slow_figures(training, held_out))


def test_blocks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [b"abc", b"a", b"bca" * 20, b"cab"]
    whole = counts(texts)
    monkeypatch.setattr(ngrams, "_BLOCK_BYTES", 5)
    assert (counts(texts) == whole).all()
    assert whole.sum() == sum(map(len, texts))
    assert whole[BOS].sum() == len(texts)


def test_text_without_a_pattern_costs_eight_bits() -> None:
    text = [bytes(range(256)) * 4]
    assert counting_figures(counts(text), counts(text)).unigram == pytest.approx(8.0)
