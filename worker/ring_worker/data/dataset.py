"""The reader: windows of the prepared tokens by their number, for any rank, without state.

A pass over the training text cuts it into windows on a grid, which begins somewhere else in every pass, so that borders
differ; the text goes round in a circle for it. The order of the windows is a permutation. Both are pure functions of
seed and pass, so that the position in a checkpoint is one number, whatever the data degree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ring_worker.contract import Data
from ring_worker.data.errors import DataConfigError
from ring_worker.data.faults import stop_for
from ring_worker.data.join import read_faults
from ring_worker.data.permutation import keyed_number, permuted
from ring_worker.data.stored import DatasetInfo, Split, prepared_folder, read_info, tokenizer_file
from ring_worker.data.streams import TokenStream
from ring_worker.data.tokenizers import BYTES, Tokenizer, load_tokenizer
from ring_worker.data.window import Window

_OFFSET = 1 << 63  # what the grid's offset is drawn with: no index of a permutation round


class Dataset:
    """Prepared data as windows of `length` tokens.

    `fingerprint` names the preparation: a checkpoint of another one was trained on other text. Figures in bits per
    byte are of the held-out text, nan where nothing is held out.
    """

    def __init__(self, folder: Path, info: DatasetInfo, length: int) -> None:
        """Use `open`, which checks."""
        self._length, self._info = length, info
        self._training = TokenStream(folder, info, Split.TRAINING)
        self._held_out = TokenStream(folder, info, Split.HELD_OUT)
        self._tokenizer: Tokenizer = load_tokenizer(BYTES if info.tokenizer == BYTES else str(tokenizer_file(folder)))
        self.fingerprint = info.fingerprint
        self.vocabulary, self.bos = info.vocabulary, info.bos
        self.documents = info.training.documents + info.heldout.documents
        self.skipped = sum(kind.count for kind in info.skipped)
        self.training_tokens = self._training.length
        self.held_out_bytes = info.heldout.bytes
        self.bytes_per_token = info.training.bytes / max(1, info.training.tokens - info.training.documents)
        self.unigram_bits_per_byte = _or_nan(info.unigram_bits_per_byte)
        self.bigram_bits_per_byte = _or_nan(info.bigram_bits_per_byte)
        self.sequences_per_pass = self.training_tokens // length
        self.held_out_sequences = max(0, math.ceil((self._held_out.length - 1) / length))

    @classmethod
    def open(cls, data: Data, length: int) -> Dataset:
        """The data that `prepare` made for this configuration, found without a look at the source.

        Raises DataConfigError when there are none, or less than `length` tokens; BadInputError when they are damaged,
        or have bad documents that were skipped before `on_error: stop` was set.
        """
        folder = prepared_folder(data)
        info = read_info(folder)
        if data.on_error == "stop" and info.skipped:
            raise stop_for(read_faults(folder), complete=True)
        _check_length(info, length)
        return cls(folder, info, length)

    def training(self, index: int) -> Window:
        """Sequence number `index` >= 0 since the job began, counted over all data ranks."""
        number, place = divmod(index, self.sequences_per_pass)
        key = f"{self._info.seed} {number}".encode()
        offset = keyed_number(key, _OFFSET) % self.training_tokens
        start = offset + self._length * permuted(place, self.sequences_per_pass, key)
        return Window(self._training, start % self.training_tokens, self._length, self._info.bos, wraps=True)

    def held_out(self, index: int) -> Window:
        """Window 0 <= index < held_out_sequences: together they predict every held-out token once."""
        if not 0 <= index < self.held_out_sequences:
            raise IndexError(f"held-out window {index} of {self.held_out_sequences}")
        return Window(self._held_out, index * self._length, self._length, self._info.bos, wraps=False)

    def encode(self, text: str) -> list[int]:
        """Without BOS."""
        return [int(i) for i in self._tokenizer.encode(text.encode())]

    def decode(self, ids: Sequence[int]) -> str:
        """BOS becomes a line break; bytes that are not UTF-8 become replacement characters."""
        return self._tokenizer.decode(ids)

    def bits_per_byte(self, nll_nats_sum: float, tokens: int) -> float:
        """From the summed loss of `tokens` held-out labels, in nats.

        Over all held-out windows exactly nats / ln 2 / bytes. Over a part of them the bytes are taken to be
        `tokens` x the mean bytes of a held-out token; with the bytes tokenizer that is exact too.
        """
        held_out = self._info.heldout
        text_bytes = held_out.bytes * (tokens / (held_out.tokens - held_out.documents))
        return nll_nats_sum / math.log(2) / text_bytes


def _or_nan(figure: float | None) -> float:
    return math.nan if figure is None else figure


def _check_length(info: DatasetInfo, length: int) -> None:
    if info.training.tokens < length:
        documents = info.training.documents + info.heldout.documents
        raise DataConfigError(
            f"spec.context.length: {length} tokens, but the training text has only {info.training.tokens} "
            f"({info.training.documents} of {documents} documents). "
            f"Lower it to at most {info.training.tokens}, or give more text."
        )
