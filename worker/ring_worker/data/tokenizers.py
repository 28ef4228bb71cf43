"""Text to token ids and back: bytes, which need nothing, or a Hugging Face tokenizer.json.

Every document is stored behind one BOS token, which no text can produce: bytes have it at 256; a tokenizer.json gives
the special token that its own models saw at a document's start (or, failing that, at its end), so that the vocabulary
stays that of the model; without such a token the id behind its last one is added. Special tokens that stand in the
text are text: they are encoded by their letters. Truncation and padding that a tokenizer.json may ask for are switched
off, and no post-processor runs: they would lose text, or add tokens, in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ring_worker.data.errors import DataConfigError

BYTES = "bytes"
_BYTES_BOS = 256
_BYTE_OF_BOS = ord("\n")
_NO_TEXT = 0xFF  # never part of UTF-8: for ids that only a model with a larger vocabulary has

Ids: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

# Names of special tokens at a document's start, then at its end, in the order of preference.
BOS_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>", "<|bos|>", "[BOS]", "<BOS>", "[CLS]")
EOS_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<EOS>", "[SEP]")


class Tokenizer(Protocol):
    """`vocabulary`: all ids are below it, `bos` included. `fingerprint` changes with anything that changes the ids."""

    vocabulary: int
    bos: int
    fingerprint: str

    def encode(self, text: bytes) -> Ids:
        """The ids of a document of UTF-8, without BOS."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of any ids; BOS becomes a line break."""
        ...


class BytesTokenizer:
    vocabulary = 257
    bos = _BYTES_BOS
    fingerprint = BYTES

    def encode(self, text: bytes) -> Ids:
        return np.frombuffer(text, dtype=np.uint8)

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are not UTF-8 become replacement characters."""
        return bytes(_BYTE_OF_BOS if i == self.bos else min(i, _NO_TEXT) for i in ids).decode(errors="replace")


class FileTokenizer:
    """A tokenizer.json."""

    def __init__(self, content: bytes, name: str) -> None:
        """Raises DataConfigError when `content` is not a tokenizer; `name` is for the message."""
        self.fingerprint = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._name = name
        self._tokenizer = _parse(content, name)
        size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        special = _document_border(self._tokenizer)
        self.bos = size if special is None else special
        self.vocabulary = max(size, self.bos + 1)

    def encode(self, text: bytes) -> Ids:
        try:
            encoding = self._tokenizer.encode(text.decode(), add_special_tokens=False)
        except Exception as error:  # the library raises the bare class, as for a word that it does not know
            raise DataConfigError(f"spec.data.tokenizer: {self._name!r} fails on the text: {error}") from None
        return np.asarray(encoding.ids, dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        documents: list[list[int]] = [[]]
        for i in ids:
            if i == self.bos:
                documents.append([])
            else:
                documents[-1].append(int(i))
        return "\n".join(self._tokenizer.decode(part, skip_special_tokens=False) for part in documents)


def load_tokenizer(tokenizer: str) -> Tokenizer:
    """`contract.Data.tokenizer`: "bytes" or the path of a tokenizer.json. Raises DataConfigError."""
    return BytesTokenizer() if tokenizer == BYTES else FileTokenizer(read_tokenizer_file(tokenizer), tokenizer)


def read_tokenizer_file(path: str) -> bytes:
    """Raises DataConfigError when there is no such file."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataConfigError(
            f"spec.data.tokenizer: {path!r} cannot be read: {error.strerror}. "
            f"Give the path of a tokenizer.json, or {BYTES!r}."
        ) from None


def _parse(content: bytes, name: str) -> Any:
    import tokenizers  # only where one is asked for: bytes need no library

    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises the bare class
        raise DataConfigError(
            f"spec.data.tokenizer: {name!r} is not a Hugging Face tokenizer.json: {error}. "
            "A slow tokenizer (vocab.txt, *.model) must be converted first."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _document_border(tokenizer: Any) -> int | None:
    special = {t.content: i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    return next((special[name] for name in (*BOS_NAMES, *EOS_NAMES) if name in special), None)
