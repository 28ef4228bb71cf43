"""Follow metrics.jsonl while the worker writes it.

After a restart the worker cuts the file back to its checkpoint and goes on, so lines may vanish and steps come again.
(epoch, step) only grows, whatever happens to the file, and tells new lines from old.
"""

from __future__ import annotations

import os
from pathlib import Path

from ring_worker.contract import ContractError, MetricsLine


class MetricsTail:
    """`poll` gives the lines that are new since the last call. Lines of epochs up to `epoch` count as old."""

    def __init__(self, path: Path, epoch: int) -> None:
        self._path = path
        self._newest = (epoch + 1, -1)
        self._file = (0, 0)  # inode, bytes read

    def poll(self) -> list[MetricsLine]:
        lines = [line for line in self._read() if (line.epoch, line.step) > self._newest]
        if lines:
            self._newest = (lines[-1].epoch, lines[-1].step)
        return lines

    def _read(self) -> list[MetricsLine]:
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                inode, done = self._file
                offset = done if inode == facts.st_ino and done <= facts.st_size else 0
                file.seek(offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._file = (facts.st_ino, offset + len(whole) + bool(whole))
        return [line for text in whole.splitlines() if (line := _parse(text)) is not None]


def _parse(text: bytes) -> MetricsLine | None:
    try:
        return MetricsLine.from_json(text.decode())
    except (ContractError, UnicodeDecodeError):
        return None
