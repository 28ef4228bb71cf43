"""The checkpoints of one job: saved, found and loaded by all ranks together.

Every method is called by every rank of the group, and comes to the same end on all of them. Each rank writes its part
and takes its hash; only rank 0 decides when the whole is complete, and the others return after it has: none goes on
in the belief of a checkpoint that is not there. Before a load the hashing is shared out too, and nothing is unpickled
before every file has been found as it was written.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ring_worker.checkpoint import folder, tensors
from ring_worker.checkpoint.errors import CheckpointError, MismatchedCheckpointError
from ring_worker.checkpoint.folder import Marker, Stored
from ring_worker.checkpoint.ranks import Ranks
from ring_worker.contract import Degrees
from ring_worker.telemetry.record import CheckpointRecord


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes checkpoints, for their readers."""

    job_uid: str = ""
    degrees: Degrees | None = None


class Checkpoints:
    """The checkpoints in `path`, of which the newest `keep` (at least 1) stay.

    `group`: all ranks of the job; None: this process alone. `writer` is noted in each checkpoint.
    """

    def __init__(self, path: Path, keep: int, group: dist.ProcessGroup | None, writer: Writer = Writer()) -> None:
        if keep < 1:
            raise ValueError(f"keep: {keep}, but at least 1 checkpoint must stay")
        self._path, self._keep, self._group, self._writer = path, keep, group, writer
        self._ranks = Ranks(group)

    def save(self, step: int, state: dict[str, Any]) -> CheckpointRecord:
        """Write `state` (nested dicts of tensors, int and float; replicated or DTensor) as the checkpoint of `step`.

        On return it is complete, on the disk, and older ones are pruned. Raises CheckpointError on every rank if it
        cannot be written; then those before it are as they were.
        """
        began = time.monotonic()
        flat = tensors.flatten(state)
        draft: Path | None = None
        try:
            draft = self._ranks.first(lambda: folder.new_draft(self._path, step))
            marker = self._fill(draft, step, flat)
        except CheckpointError as error:
            raise CheckpointError(self._not_saved(step, draft, error)) from None
        return CheckpointRecord(step, time.monotonic() - began, marker.bytes)

    def load(self, which: int | Path, state: dict[str, Any]) -> None:
        """Fill `state` in place from a complete checkpoint: a step of this job, or the folder of one anywhere.

        Of the top-level sections of `state`, all are filled and none may differ in names, shapes or types; sections
        that it leaves out are not read. Raises DamagedCheckpointError or MismatchedCheckpointError.
        """
        flat = tensors.flatten(state)
        place = self._ranks.first(lambda: self._locate(which))
        marker = self._ranks.first(lambda: folder.read_marker(place))
        mine = marker.files[self._ranks.rank :: self._ranks.size]
        self._ranks.each(lambda: folder.verify(place, mine))
        self._ranks.each(lambda: tensors.require_fit(flat, place))
        tensors.read(flat, place, self._group)
        tensors.fill_numbers(state, flat)

    def latest(self, own: bool = False) -> int | None:
        """Step of the complete checkpoint written last, or of the last that this job wrote; None if there is none.

        Raises DamagedCheckpointError if a marker is unreadable: an older one is never taken instead without a word.
        """
        return self._ranks.first(lambda: _newest_step(self._path, self._writer.job_uid if own else None))

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return self._ranks.first(
            lambda: sorted({found.marker.step for found in folder.complete(self._path) if found.marker})
        )

    def _fill(self, draft: Path, step: int, flat: dict[str, Tensor]) -> Marker:
        tensors.write(flat, draft, self._group)
        written = self._ranks.each(lambda: [Stored.of(path) for path in tensors.files_of(draft, self._ranks.rank)])
        files = tuple(file for of_rank in written for file in of_rank)
        return self._ranks.first(lambda: self._complete(draft, step, files))

    def _complete(self, draft: Path, step: int, files: tuple[Stored, ...]) -> Marker:
        """On rank 0 alone."""
        serial = 1 + max((c.marker.serial for c in folder.complete(self._path) if c.marker), default=0)
        marker = Marker(step, serial, self._ranks.size, self._writer.degrees, files, self._writer.job_uid)
        folder.publish(draft, marker)
        folder.prune(self._path, self._keep)
        return marker

    def _not_saved(self, step: int, draft: Path | None, error: CheckpointError) -> str:
        if draft is not None and self._ranks.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
        kept = sorted({c.marker.step for c in folder.complete(self._path) if c.marker})
        return (
            f"{self._path}: the checkpoint of step {step} could not be written: {error}.\n"
            f"  Complete ones are untouched: {', '.join(map(str, kept)) or 'none yet'}."
        )

    def _locate(self, which: int | Path) -> Path:
        if isinstance(which, Path):
            return which
        found = [c.folder for c in folder.complete(self._path) if c.step == which]
        if not found:
            raise MismatchedCheckpointError(f"{self._path}: no complete checkpoint of step {which}.")
        return found[-1]


def _newest_step(path: Path, job_uid: str | None) -> int | None:
    """Of the job `job_uid`, or of any. Only the latter meets unreadable ones, whose writer nobody knows."""
    found = [c for c in folder.complete(path) if job_uid is None or (c.marker and c.marker.job_uid == job_uid)]
    if not found:
        return None
    if (marker := found[-1].marker) is None:
        marker = folder.read_marker(found[-1].folder)  # raises, with the reason
    return marker.step
