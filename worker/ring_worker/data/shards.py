"""One shard: a bounded run of the source, turned into tokens by one process, on its own.

The plan depends on the listing alone, so that a preparation gives the same files whatever the number of processes and
however often it was interrupted. A shard streams its tokens to two files, one for each split, and then writes what it
knows of its documents; with that last file it is finished, and a preparation that starts again leaves it alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ring_worker.data.documents import Document, Piece, read_piece
from ring_worker.data.faults import LISTED, Fault, FaultKind
from ring_worker.data.files import atomic_file
from ring_worker.data.heldout import share_of
from ring_worker.data.ngrams import BigramCounter, BigramCounts, pack_counts, unpack_counts
from ring_worker.data.sources import Listing
from ring_worker.data.stored import Split, shard_file
from ring_worker.data.tokenizers import Tokenizer, load_tokenizer

SHARDS_WANTED = 64  # of a small source: enough for the processes to share it evenly
SMALLEST_SHARD_BYTES = 1 << 20
LARGEST_SHARD_BYTES = 1 << 26  # bounds what a kill can cost, and the size of the files


@dataclass(frozen=True, slots=True)
class Shard:
    number: int
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def files(self) -> int:
        """Files that end in this shard."""
        return sum(piece.last for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How documents become tokens: all that a preparing process needs, beside its shard.

    `root`, `field`: as in `Listing`. `tokenizer`: as in `contract.Data`.
    """

    folder: Path
    root: str
    field: str | None
    tokenizer: str
    held_out_fraction: float
    seed: int

    def split(self, document_id: str) -> Split:
        held_out = share_of(document_id, self.seed) < self.held_out_fraction
        return Split.HELD_OUT if held_out else Split.TRAINING


@dataclass(frozen=True, slots=True)
class ShardReport:
    """`faults`: how many; `first`: some of them."""

    number: int
    faults: int
    first: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One split of one shard, in the order of its documents. Lengths in tokens, BOS included."""

    ids: tuple[str, ...]
    lengths: npt.NDArray[np.int64]
    sizes_bytes: npt.NDArray[np.int64]
    bigrams: BigramCounts

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class ShardIndex:
    parts: Mapping[Split, SplitPart]
    faults: tuple[Fault, ...]


def shard_bytes_for(source_bytes: int) -> int:
    return min(max(source_bytes // SHARDS_WANTED, SMALLEST_SHARD_BYTES), LARGEST_SHARD_BYTES)


def range_borders(size_bytes: int, shard_bytes: int) -> list[int]:
    """Where a JSONL file is cut: ranges of at most `shard_bytes`; an empty file has one empty range."""
    return [*range(0, size_bytes, shard_bytes), size_bytes] if size_bytes else [0, 0]


def count_line_ends(path: Path, start: int, stop: int) -> int:
    """Line feeds among the bytes start .. stop of a file; 0 where it cannot be read, which its reader will report."""
    total = 0
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            while start < stop and (block := stream.read(min(1 << 20, stop - start))):
                total += block.count(b"\n")
                start += len(block)
    except OSError:
        return 0
    return total


def plan_shards(listing: Listing, shard_bytes: int, line_ends: Mapping[str, list[int]]) -> list[Shard]:
    """Consecutive pieces, as many to a shard as have room. `line_ends`: of each range of each JSONL file."""
    shards: list[Shard] = []
    pieces: list[Piece] = []
    room = shard_bytes
    for piece in _pieces(listing, shard_bytes, line_ends):
        size = piece.stop - piece.start
        if pieces and size > room:
            shards.append(Shard(len(shards), tuple(pieces)))
            pieces, room = [], shard_bytes
        pieces.append(piece)
        room -= size
    return [*shards, Shard(len(shards), tuple(pieces))]


def _pieces(listing: Listing, shard_bytes: int, line_ends: Mapping[str, list[int]]) -> Iterator[Piece]:
    for file in listing.files:
        if listing.field is None or file.path not in line_ends:
            yield Piece(file, 0, file.size_bytes)
            continue
        borders = range_borders(file.size_bytes, shard_bytes)
        before = 0
        for start, stop, ends in zip(borders[:-1], borders[1:], line_ends[file.path], strict=True):
            yield Piece(file, start, stop, before)
            before += ends


def make_shard(recipe: Recipe, shard: Shard) -> ShardReport:
    """Read, tokenize, count and write one shard."""
    tokenizer = _tokenizer(recipe.tokenizer)
    faults: list[Fault] = []
    with ExitStack() as stack:
        writers = {
            split: _Writer(stack.enter_context(atomic_file(shard_file(recipe.folder, shard.number, f"{split}.bin"))))
            for split in Split
        }
        for found in (d for piece in shard.pieces for d in read_piece(recipe.root, piece, recipe.field)):
            fault = found if isinstance(found, Fault) else writers[recipe.split(found.id)].add(found, tokenizer)
            if fault:
                faults.append(fault)
    parts = {split: writer.part() for split, writer in writers.items()}
    _write_index(shard_file(recipe.folder, shard.number, "npz"), ShardIndex(parts, tuple(faults)))
    return ShardReport(shard.number, len(faults), tuple(faults[:LISTED]))


@lru_cache(maxsize=1)
def _tokenizer(tokenizer: str) -> Tokenizer:
    """Read once in a process."""
    return load_tokenizer(tokenizer)


def token_type(vocabulary: int) -> npt.DTypeLike:
    """The smallest type that holds all ids, little endian."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


class _Writer:
    """Appends the documents of one split to a file and remembers what the index needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ids: list[str] = []
        self._lengths: list[int] = []
        self._sizes: list[int] = []
        self._bigrams = BigramCounter()

    def add(self, document: Document, tokenizer: Tokenizer) -> Fault | None:
        """A fault where the tokenizer leaves nothing of the document."""
        ids = tokenizer.encode(document.text)
        if not len(ids):
            return Fault(FaultKind.EMPTY, document.file, document.line, -1, "the tokenizer finds no token in it")
        tokens = np.empty(1 + len(ids), dtype=token_type(tokenizer.vocabulary))
        tokens[0] = tokenizer.bos
        tokens[1:] = ids
        self._stream.write(tokens.data)
        self._ids.append(document.id)
        self._lengths.append(len(tokens))
        self._sizes.append(len(document.text))
        self._bigrams.add(document.text)
        return None

    def part(self) -> SplitPart:
        return SplitPart(
            tuple(self._ids),
            np.array(self._lengths, dtype=np.int64),
            np.array(self._sizes, dtype=np.int64),
            self._bigrams.counts(),
        )


def _write_index(path: Path, index: ShardIndex) -> None:
    columns: dict[str, npt.NDArray[np.generic]] = {"faults": _text([f.to_json() for f in index.faults])}
    for split, part in index.parts.items():
        columns[f"{split}.ids"] = _text([json.dumps(i) for i in part.ids])
        columns[f"{split}.lengths"] = part.lengths
        columns[f"{split}.sizes"] = part.sizes_bytes
        columns[f"{split}.pairs"], columns[f"{split}.counts"] = pack_counts(part.bigrams)
    with atomic_file(path) as stream:
        np.savez_compressed(stream, **columns)  # type: ignore[arg-type]


def _text(lines: list[str]) -> npt.NDArray[np.generic]:
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def _lines(column: npt.NDArray[np.generic]) -> list[str]:
    return bytes(column).decode().splitlines()


def read_index(folder: Path, number: int) -> ShardIndex:
    """Raises FileNotFoundError, or whatever a damaged file gives."""
    with np.load(shard_file(folder, number, "npz"), allow_pickle=False) as columns:
        parts = {
            split: SplitPart(
                tuple(json.loads(line) for line in _lines(columns[f"{split}.ids"])),
                columns[f"{split}.lengths"],
                columns[f"{split}.sizes"],
                unpack_counts(columns[f"{split}.pairs"], columns[f"{split}.counts"]),
            )
            for split in Split
        }
        return ShardIndex(parts, tuple(Fault.from_json(line) for line in _lines(columns["faults"])))


def finished_report(recipe: Recipe, number: int) -> ShardReport | None:
    """The report of a shard that an earlier start finished; None where it must be made."""
    itemsize = np.dtype(token_type(_tokenizer(recipe.tokenizer).vocabulary)).itemsize
    try:
        index = read_index(recipe.folder, number)
        for split, part in index.parts.items():
            if shard_file(recipe.folder, number, f"{split}.bin").stat().st_size != part.tokens * itemsize:
                return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return ShardReport(number, len(index.faults), index.faults[:LISTED])
