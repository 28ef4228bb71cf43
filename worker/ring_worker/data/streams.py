"""A stream of tokens in many files, read by ranges: only the bytes that are asked for are touched.

Files are mapped when they are first needed and only some stay mapped, since every map holds a file descriptor.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ring_worker.data.stored import DatasetInfo, Split, damaged, index_file, shard_file

MAPPED_FILES = 64

Ids = npt.NDArray[np.int64]


class TokenStream:
    """One split of the prepared data: tokens of all its documents, one after the other."""

    def __init__(self, folder: Path, info: DatasetInfo, split: Split) -> None:
        self._folder = folder
        self._split = split
        self._dtype = np.dtype(info.dtype)
        self._counts = [shard.of(split) for shard in info.shards]
        self._ends = list(accumulate(self._counts))
        self._starts = _load_starts(folder, split)
        self._map = lru_cache(maxsize=MAPPED_FILES)(self._map_shard)
        self.length = self._ends[-1]
        if int(self._starts[-1]) != self.length:
            raise damaged(folder, f"{split}: {int(self._starts[-1])} tokens in the index, {self.length} in the shards")

    def read(self, start: int, stop: int) -> Ids:
        """Tokens start .. stop, 0 <= start <= stop <= length."""
        parts = []
        shard = bisect_right(self._ends, start)
        while start < stop:
            first = self._ends[shard] - self._counts[shard]
            end = min(stop, self._ends[shard])
            if end > start:
                parts.append(self._slice(shard, start - first, end - first))
            start, shard = max(start, end), shard + 1
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)

    def document_starts(self, start: int, stop: int) -> Sequence[int]:
        """Positions in start .. stop at which a document begins, sorted."""
        count = len(self._starts) - 1
        first = bisect_left(self._starts, start, hi=count)
        return [int(p) for p in self._starts[first : bisect_left(self._starts, stop, lo=first, hi=count)]]

    def _slice(self, shard: int, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]:
        """The one place where tokens come from a file."""
        return self._map(shard)[start:stop]

    def _map_shard(self, shard: int) -> npt.NDArray[np.unsignedinteger]:
        path = shard_file(self._folder, shard, f"{self._split}.bin")
        try:
            tokens = np.memmap(path, dtype=self._dtype, mode="r")
        except (OSError, ValueError) as error:
            raise damaged(self._folder, f"{path.name}: {error}") from None
        if len(tokens) != self._counts[shard]:
            raise damaged(self._folder, f"{path.name}: {len(tokens)} tokens, not {self._counts[shard]}")
        return tokens


def _load_starts(folder: Path, split: Split) -> Ids:
    path = index_file(folder, split, "starts.npy")
    try:
        starts: Ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{path.name}: {error}") from None
    return starts
