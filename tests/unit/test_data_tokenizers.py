"""Tokenizers: what BOS is, that no text can forge it, and that nothing of the text is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from data_samples import data_of, word_corpus, write_corpus
from ring_worker.data.dataset import Dataset
from ring_worker.data.errors import DataConfigError
from ring_worker.data.prepare import prepare
from ring_worker.data.tokenizers import FileTokenizer, load_tokenizer
from ring_worker.data.window import IGNORED

TEXTS = word_corpus(30, words=120)


def byte_level_bpe(special: list[str], vocabulary: int = 280) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([t.decode() for t in TEXTS.values()], trainer)
    return tokenizer


def saved(tokenizer: tokenizers.Tokenizer, folder: Path) -> str:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


@pytest.mark.parametrize(
    "special, bos, vocabulary",
    [
        ([], 280, 281),
        (["<pad>", "<s>", "</s>"], 1, 280),
        (["</s>", "<s>"], 1, 280),
        (["<|endoftext|>"], 0, 280),
        (["<pad>"], 280, 281),
    ],
)
def test_bos_is_the_tokenizers_own_or_one_behind_the_last(
    tmp_path: Path, special: list[str], bos: int, vocabulary: int
) -> None:
    tokenizer = load_tokenizer(saved(byte_level_bpe(special), tmp_path))
    assert (tokenizer.bos, tokenizer.vocabulary) == (bos, vocabulary)


def test_special_tokens_in_the_text_are_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(byte_level_bpe(["<|endoftext|>", "<s>"]), tmp_path))
    text = "a ring <|endoftext|> of <s> blocks"
    ids = tokenizer.encode(text.encode())
    assert not {0, 1} & set(ids.tolist())
    assert tokenizer.decode(ids.tolist()) == text


def test_truncation_padding_and_templates_are_switched_off(tmp_path: Path) -> None:
    plain = byte_level_bpe(["<s>"])
    expected = plain.encode("attention " * 50).ids
    plain.enable_truncation(8)
    plain.enable_padding(length=4096)
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = load_tokenizer(saved(plain, tmp_path))
    assert tokenizer.encode(b"attention " * 50).tolist() == expected


def test_bos_decodes_to_a_line_break(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(byte_level_bpe([]), tmp_path))
    ring = tokenizer.encode(b"ring").tolist()
    assert tokenizer.decode([tokenizer.bos, *ring, tokenizer.bos, *ring]) == "\nring\nring"


def test_documents_go_through_a_tokenizer_to_windows_and_back(tmp_path: Path) -> None:
    path = saved(byte_level_bpe([]), tmp_path)
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "prepared", tokenizer=path)
    prepare(data, shard_bytes=2000)
    Path(path).unlink()  # the preparation keeps its own
    dataset = Dataset.open(data, 64)
    windows = [dataset.held_out(i) for i in range(dataset.held_out_sequences)]
    labels = np.concatenate([w.labels([(0, 64)]) for w in windows])
    kept = labels[labels != IGNORED].tolist()
    assert len(dataset.decode(kept).encode()) == dataset.held_out_bytes
    assert dataset.vocabulary == 281
    assert dataset.decode(dataset.encode("ähre 🙂")) == "ähre 🙂"
    nats = 2.5 * dataset.held_out_bytes * np.log(2)
    assert dataset.bits_per_byte(nats, len(kept)) == pytest.approx(2.5)
    assert dataset.bits_per_byte(nats / 2, len(kept) // 2) == pytest.approx(2.5, rel=0.01)


@pytest.mark.parametrize("vocabulary, item_bytes", [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_tokens_take_the_smallest_type_that_fits(tmp_path: Path, vocabulary: int, item_bytes: int) -> None:
    words = {"unknown": 0, "w1": 1, "w2": 2, "last": vocabulary - 2}  # ids may have holes
    tokenizer = tokenizers.Tokenizer(models.WordLevel(words, unk_token="unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = saved(tokenizer, tmp_path)
    texts = {f"{i}.txt": b"last w1 w2" for i in range(12)}
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "prepared", tokenizer=path)
    folder = prepare(data)
    dataset = Dataset.open(data, 4)
    assert (folder / "shards/000000.training.bin").stat().st_size == item_bytes * dataset.training_tokens
    assert {vocabulary - 2, vocabulary - 1} <= set(dataset.held_out(0).tokens([(0, 4)]).tolist())


def test_a_document_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    lossy = byte_level_bpe([])
    lossy.normalizer = normalizers.Strip()
    path = saved(lossy, tmp_path)
    texts = {**TEXTS, "blank.txt": b"  \n "}
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "prepared", tokenizer=path, on_error="skip")
    prepare(data)
    assert Dataset.open(data, 16).skipped == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"version": "1.0", "model": {"type": "Nonsense"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(DataConfigError, match=r"spec\.data\.tokenizer: 'it' is not a Hugging Face tokenizer\.json"):
        FileTokenizer(content, "it")


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataConfigError, match="cannot be read: No such file or directory"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))
