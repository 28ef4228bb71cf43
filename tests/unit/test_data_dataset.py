"""Windows against plain Python over the raw text: alignment, coverage, and no more read than asked for."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_samples import BOS, data_of, streams_of, word_corpus, write_corpus
from ring_worker.data.dataset import Dataset
from ring_worker.data.errors import BadInputError, DataConfigError
from ring_worker.data.heldout import share_of
from ring_worker.data.permutation import permuted
from ring_worker.data.prepare import prepare
from ring_worker.data.stored import prepared_folder
from ring_worker.data.streams import TokenStream
from ring_worker.data.window import IGNORED, Window

TEXTS = word_corpus(40)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The words prepared in several shards of a few documents."""
    root = tmp_path_factory.mktemp("words")
    prepare(data_of(write_corpus(root / "text", TEXTS), root / "prepared"), shard_bytes=700)
    return root


def opened(prepared: Path, length: int) -> Dataset:
    return Dataset.open(data_of(prepared / "text", prepared / "prepared"), length)


def test_the_figures_are_those_of_the_text(prepared: Path) -> None:
    training, held_out = streams_of(TEXTS, 0.2, seed=0)
    dataset = opened(prepared, 32)
    assert (dataset.vocabulary, dataset.documents, dataset.skipped) == (257, 40, 0)
    assert dataset.training_tokens == len(training)
    assert dataset.held_out_bytes == sum(t != BOS for t in held_out)
    assert dataset.sequences_per_pass == len(training) // 32
    assert len(list(prepared.glob("prepared/*/shards/*.training.bin"))) > 5


@pytest.mark.parametrize("length", [1, 7, 64, 333])
def test_a_training_window_is_a_piece_of_the_text_in_a_circle(prepared: Path, length: int) -> None:
    training, _ = streams_of(TEXTS, 0.2, seed=0)
    dataset = opened(prepared, length)
    circle = training * 2
    for index in range(0, 3 * dataset.sequences_per_pass, max(1, dataset.sequences_per_pass // 9)):
        window = dataset.training(index)
        expected = circle[window.start : window.start + length + 1]
        whole = [(0, length)]
        assert window.tokens(whole).tolist() == expected[:-1]
        assert window.labels(whole).tolist() == [IGNORED if t == BOS else t for t in expected[1:]]
        starts = [p for p, t in enumerate(expected[:-1]) if t == BOS and p > 0]
        assert window.document_starts == (0, *starts)


def test_ranges_are_concatenated_in_the_order_given(prepared: Path) -> None:
    window = opened(prepared, 64).training(3)
    for read in (window.tokens, window.labels):
        whole = read([(0, 64)])
        assert whole.dtype == np.int64
        assert read([(48, 64), (0, 5), (7, 7)]).tolist() == [*whole[48:].tolist(), *whole[:5].tolist()]
        assert read([]).tolist() == []


def test_a_pass_covers_the_text_once_and_no_two_passes_agree(prepared: Path) -> None:
    dataset = opened(prepared, 16)
    n, total = dataset.sequences_per_pass, dataset.training_tokens
    orders = []
    for number in range(3):
        starts = [dataset.training(number * n + i).start for i in range(n)]
        covered = Counter((start + p) % total for start in starts for p in range(16))
        assert set(covered.values()) == {1}
        assert len(covered) == 16 * n > total - 16
        orders.append(starts)
    assert len({min(s % 16 for s in order) for order in orders}) > 1, "the grid is not shifted"
    assert all(sorted(order) != order for order in orders), "the order is not shuffled"
    assert orders[0] != orders[1]


def test_windows_depend_on_seed_and_index_alone(prepared: Path) -> None:
    one, other = opened(prepared, 16), opened(prepared, 16)
    indexes = [500, 0, 77, 3]
    assert [one.training(i).start for i in indexes] == [other.training(i).start for i in reversed(indexes)][::-1]


@given(n=st.integers(1, 600), key=st.binary(max_size=16))
@settings(max_examples=40, deadline=None)
def test_the_permutation_is_one(n: int, key: bytes) -> None:
    assert sorted(permuted(i, n, key) for i in range(n)) == list(range(n))


def test_the_permutation_looks_random() -> None:
    """Over many keys each place is about equally likely, and neighbours do not stay neighbours."""
    n, keys = 10, 3000
    counts = Counter(permuted(3, n, str(key).encode()) for key in range(keys))
    deviation = sum((counts[i] - keys / n) ** 2 / (keys / n) for i in range(n))
    assert deviation < 27.9  # chi squared, 9 degrees of freedom, one in a thousand
    shuffled = [permuted(i, 5000, b"k") for i in range(5000)]
    assert sum(abs(a - b) == 1 for a, b in pairwise(shuffled)) < 12


texts = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6)


@given(texts=texts, length=st.integers(1, 40), split=st.floats(0, 1), shard_bytes=st.integers(10, 60))
@settings(max_examples=25, deadline=None)
def test_every_held_out_byte_is_predicted_once(texts: list[str], length: int, split: float, shard_bytes: int) -> None:
    corpus = {f"{i}.txt": text.encode() for i, text in enumerate(texts)}
    shares = sorted(share_of(name, 0) for name in corpus)
    fraction = shares[1 + int(split * (len(shares) - 2))]  # holds out at least one, and not all
    held = [name for name in sorted(corpus) if share_of(name, 0) < fraction]
    training, stream = streams_of(corpus, fraction, seed=0)
    length = min(length, len(training), len(stream))
    with tempfile.TemporaryDirectory() as folder:
        data = data_of(write_corpus(Path(folder) / "text", corpus), Path(folder) / "out", held_out_fraction=fraction)
        prepare(data, shard_bytes)
        dataset = Dataset.open(data, length)
        windows = [dataset.held_out(i) for i in range(dataset.held_out_sequences)]
        tokens = np.concatenate([w.tokens([(0, length)]) for w in windows]).tolist()
        labels = np.concatenate([w.labels([(0, length)]) for w in windows]).tolist()
    assert len(tokens) == len(labels) == length * len(windows)
    text = stream + [BOS] * length
    assert tokens == text[: len(tokens)]
    assert labels == [IGNORED if t == BOS else t for t in text[1 : 1 + len(labels)]]
    assert bytes(t for t in labels if t != IGNORED) == b"".join(corpus[name] for name in held)


def test_only_what_is_asked_for_is_read(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(prepared, 256)
    window = dataset.training(0)
    read: list[tuple[int, int, int]] = []
    take = TokenStream._slice

    def watched(stream: TokenStream, shard: int, start: int, stop: int) -> np.ndarray:
        read.append((shard, start, stop))
        return take(stream, shard, start, stop)

    monkeypatch.setattr(TokenStream, "_slice", watched)
    window.tokens([(3, 11), (200, 216)])
    assert sum(stop - start for _, start, stop in read) == 8 + 16
    read.clear()
    window.labels([(3, 11)])
    assert sum(stop - start for _, start, stop in read) == 8
    read.clear()
    assert window.document_starts[0] == 0
    assert not read


def test_bits_per_byte_of_all_and_of_a_part(prepared: Path) -> None:
    dataset = opened(prepared, 32)
    labels = dataset.held_out_bytes
    assert dataset.bits_per_byte(labels * math.log(2) * 3.0, labels) == pytest.approx(3.0)
    assert dataset.bits_per_byte(10 * math.log(2) * 3.0, 10) == pytest.approx(3.0)


def test_text_goes_in_and_out(prepared: Path) -> None:
    dataset = opened(prepared, 32)
    ids = dataset.encode("ähre 🙂\n")
    assert ids == list("ähre 🙂\n".encode())
    assert all(type(i) is int for i in ids)
    assert dataset.decode([BOS, *ids, BOS]) == "\nähre 🙂\n\n"
    assert dataset.decode(ids[:1]) == "\ufffd"


def test_a_held_out_window_that_does_not_exist_is_an_error(prepared: Path) -> None:
    dataset = opened(prepared, 32)
    with pytest.raises(IndexError):
        dataset.held_out(dataset.held_out_sequences)


def test_data_that_are_not_prepared_are_asked_for(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", TEXTS)
    with pytest.raises(DataConfigError, match="holds no data prepared for this configuration"):
        Dataset.open(data_of(tmp_path / "text", tmp_path / "prepared"), 16)


def test_another_configuration_is_not_prepared(prepared: Path) -> None:
    with pytest.raises(DataConfigError, match="holds no data prepared"):
        Dataset.open(data_of(prepared / "text", prepared / "prepared", seed=1), 16)


def test_too_little_text_is_refused_with_both_numbers(prepared: Path) -> None:
    training, held_out = streams_of(TEXTS, 0.2, seed=0)
    with pytest.raises(
        DataConfigError, match=rf"the training text has only {len(training)} .*to at most {len(training)}"
    ):
        opened(prepared, len(training) + 1)
    dataset = opened(prepared, len(held_out) + 1)  # a held-out text that is shorter than a sequence is padded
    assert dataset.held_out_sequences == 1
    labels = dataset.held_out(0).labels([(0, len(held_out) + 1)])
    assert (labels >= 0).sum() == dataset.held_out_bytes


@pytest.mark.parametrize("damage", ["cut", "gone", "index", "info"])
def test_damaged_data_are_never_read_in_silence(tmp_path: Path, damage: str) -> None:
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "prepared")
    folder = prepare(data)
    shard = folder / "shards/000000.training.bin"
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-2])
    elif damage == "gone":
        shard.unlink()
    elif damage == "index":
        (folder / "training.starts.npy").unlink()
    else:
        (folder / "dataset.json").write_text("{")
    with pytest.raises(BadInputError, match=r"the prepared data are damaged: .* Delete this folder and prepare again"):
        Dataset.open(data, 16).training(0).tokens([(0, 16)])


def test_a_window_is_small_enough_to_make_at_every_step(prepared: Path) -> None:
    window = opened(prepared, 32).training(0)
    assert isinstance(window, Window)
    assert not hasattr(window, "__dict__")


def test_the_pointer_leads_to_the_newest_preparation(tmp_path: Path) -> None:
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "prepared")
    first = prepare(data)
    write_corpus(tmp_path / "text", {"more.txt": b"one more"})
    second = prepare(data)
    assert first != second
    assert prepared_folder(data) == second
    assert Dataset.open(data, 16).documents == len(TEXTS) + 1


def test_many_shards_need_few_maps(prepared: Path) -> None:
    dataset = opened(prepared, 8)
    for index in range(dataset.sequences_per_pass):
        dataset.training(index).tokens([(0, 8)])
    assert dataset._training._map.cache_info().currsize <= 64
