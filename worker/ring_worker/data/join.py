"""Join the indexes of all shards into one for each split: the last stage of a preparation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ring_worker.data.faults import Fault
from ring_worker.data.files import atomic_file
from ring_worker.data.ngrams import BigramCounts, no_counts
from ring_worker.data.shards import ShardIndex, SplitPart, read_index
from ring_worker.data.stored import ShardTokens, Split, SplitTotals, index_file, skipped_file


@dataclass(slots=True)
class JoinedSplit:
    """Grows by one shard at a time; ids go straight to `ids_stream`, since there may be very many."""

    ids_stream: BinaryIO
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)
    sizes_bytes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    bigrams: BigramCounts = field(default_factory=no_counts)

    def add(self, part: SplitPart) -> None:
        self.ids_stream.write("".join(json.dumps(i) + "\n" for i in part.ids).encode())
        self.lengths.append(part.lengths)
        self.sizes_bytes.append(part.sizes_bytes)
        self.bigrams += part.bigrams

    def totals(self) -> SplitTotals:
        return SplitTotals(
            documents=sum(len(a) for a in self.lengths),
            bytes=sum(int(a.sum()) for a in self.sizes_bytes),
            tokens=sum(int(a.sum()) for a in self.lengths),
        )

    def write(self, folder: Path, split: Split) -> None:
        empty = [np.zeros(0, dtype=np.int64)]
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(self.lengths or empty))])
        _save(index_file(folder, split, "starts.npy"), starts)
        _save(index_file(folder, split, "bytes.npy"), np.concatenate(self.sizes_bytes or empty))


@dataclass(frozen=True, slots=True)
class Joined:
    """`shards`: tokens of each, in order."""

    splits: dict[Split, JoinedSplit]
    faults: list[Fault]
    shards: list[ShardTokens]


def join_shards(folder: Path, shards: int) -> Joined:
    """Read the indexes of the shards 0 .. shards - 1 and write those of the whole, with the list of the faults."""
    with ExitStack() as stack:
        splits = {s: JoinedSplit(stack.enter_context(atomic_file(index_file(folder, s, "ids.jsonl")))) for s in Split}
        joined = Joined(splits, [], [])
        for index in read_indexes(folder, shards):
            for split, part in index.parts.items():
                splits[split].add(part)
            joined.faults.extend(index.faults)
            tokens = {split: part.tokens for split, part in index.parts.items()}
            joined.shards.append(ShardTokens(tokens[Split.TRAINING], tokens[Split.HELD_OUT]))
        for split, whole in splits.items():
            whole.write(folder, split)
        skipped = stack.enter_context(atomic_file(skipped_file(folder)))
        skipped.writelines(f"{fault.to_json()}\n".encode() for fault in joined.faults)
    return joined


def read_indexes(folder: Path, shards: int) -> Iterable[ShardIndex]:
    return (read_index(folder, number) for number in range(shards))


def read_faults(folder: Path) -> list[Fault]:
    """The faults of a joined preparation."""
    return [Fault.from_json(line) for line in skipped_file(folder).read_text().splitlines()]


def _save(path: Path, column: npt.NDArray[np.int64]) -> None:
    with atomic_file(path) as stream:
        np.save(stream, column)
