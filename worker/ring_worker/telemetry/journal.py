"""`metrics.jsonl`: what a run logged, one line a logged step, kept over restarts.

Rank 0 appends; `ringctl`, the report and the picture read. A run that goes on from a checkpoint does steps again, so
the lines after the checkpoint are dropped first: the file always tells one history, with each step at most once, and
the `epoch` of its lines shows where it was broken.
"""

from __future__ import annotations

from pathlib import Path

from ring_worker.contract import ContractError, MetricsLine
from ring_worker.telemetry.atomic import replace_file


class Journal:
    """The lines in the file at `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: MetricsLine) -> None:
        """Add a line by one write, so that a kill tears at most the last one. Its numbers must be finite."""
        content = f"{line.to_json()}\n".encode()
        with self._path.open("ab", buffering=0) as file:
            file.write(content)

    def read(self) -> list[MetricsLine]:
        """All lines, in order; a torn last one (without its line break) is left out.

        Raises ContractError, with the line's number, if another one is unreadable.
        """
        lines = self._whole_lines()
        return [self._parse(number, line) for number, line in enumerate(lines, start=1)]

    def truncate_after(self, step: int) -> None:
        """Drop the lines of later steps, and a torn last line: to be called before the run goes on from `step`."""
        kept = [line for line in self.read() if line.step <= step]
        if self._path.exists():
            replace_file(self._path, "".join(f"{line.to_json()}\n" for line in kept).encode())

    def _whole_lines(self) -> list[bytes]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        return content.split(b"\n")[:-1]

    def _parse(self, number: int, line: bytes) -> MetricsLine:
        try:
            return MetricsLine.from_json(line.decode())
        except ValueError as error:
            message = f"{self._path}:{number}: {error}.\n  Delete that line, or the file, and go on."
            raise ContractError(message) from None
