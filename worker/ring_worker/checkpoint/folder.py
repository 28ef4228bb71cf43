"""What on the disk is a checkpoint, and what is rubbish. Standard library only; one process at a time writes.

A checkpoint is written as a *draft*, a folder named `.draft-*`. When all files are on the disk (fsync), the marker
`COMPLETE` joins them, with the size and SHA-256 of each; then one rename turns the draft into `step-00000100`. So at
any instant a name `step-*` stands for a whole checkpoint, and every name with a leading `.draft-` is rubbish of a
writer that died, which the next writer removes. Deleting goes the same way back: first the rename, then the files.

Two rules keep the last good one. Old ones are deleted after the new one is in place. A step saved anew (a run that
went on from an older checkpoint) gets a free name, `step-00000100.1`, and nothing is ever renamed over.

The newest is the one written last (`serial`), not the one of the highest step: who resumes from an older checkpoint,
since the last one is damaged, must not meet the damaged one again after his own first save.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ring_worker.checkpoint.errors import CheckpointError, DamagedCheckpointError, MismatchedCheckpointError
from ring_worker.contract import ContractError, Degrees
from ring_worker.contract.strict import VERSION, dump, load

MARKER = "COMPLETE"
_DRAFT = ".draft-"
_NAME = re.compile(r"step-(\d{8,})(\.\d+)?")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of a checkpoint, as it was when the checkpoint became complete."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        with path.open("rb") as file:
            return cls(path.name, os.fstat(file.fileno()).st_size, _sha256(file.fileno()))


@dataclass(frozen=True, slots=True)
class Marker:
    """Content of `COMPLETE`. `serial` counts the checkpoints ever written here; `degrees` is None where unknown.

    `job_uid`: of the job that wrote it; empty where unknown.
    """

    step: int
    serial: int
    world_size: int
    degrees: Degrees | None
    files: tuple[Stored, ...]
    job_uid: str = ""
    version: int = VERSION

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Complete:
    """A complete checkpoint: its folder, and its marker if it can be read."""

    folder: Path
    marker: Marker | None

    @property
    def step(self) -> int:
        return self.marker.step if self.marker else int(self.folder.name.removeprefix("step-").partition(".")[0])


def new_draft(folder: Path, step: int) -> Path:
    """An empty draft for `step` in `folder`, which is made if need be and cleared of the drafts of dead writers."""
    folder.mkdir(parents=True, exist_ok=True)
    for rubbish in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(rubbish, ignore_errors=True)
    draft = folder / f"{_DRAFT}{step:08d}-{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    return draft


def publish(draft: Path, marker: Marker) -> Path:
    """Turn a draft, whose files are on the disk, into the complete checkpoint `marker` tells of. Returns its folder.

    Raises CheckpointError if the files named are not those in the draft.
    """
    _require_same_files(draft, marker)
    _write_durably(draft / MARKER, dump(marker))
    _sync_folder(draft)
    place = _free_name(draft.parent, marker.step)
    draft.rename(place)
    _sync_folder(draft.parent)
    return place


def complete(folder: Path) -> list[Complete]:
    """All complete checkpoints in `folder`, oldest first; those with an unreadable marker last."""
    if not folder.is_dir():
        return []
    found = [_look_at(path) for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)]
    return sorted((c for c in found if c is not None), key=lambda c: c.marker.serial if c.marker else 1 << 62)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` complete checkpoints, and what they replace: older ones of the same step.

    Those with an unreadable marker are neither counted nor touched: they are evidence.
    """
    known = [c for c in complete(folder) if c.marker is not None]
    last_of_step = {c.marker.step: c for c in known if c.marker}
    kept = sorted(last_of_step.values(), key=known.index)[-keep:]
    for checkpoint in known:
        if checkpoint not in kept:
            _delete(checkpoint.folder)


def read_marker(folder: Path) -> Marker:
    """Raises MismatchedCheckpointError if `folder` is no complete checkpoint, DamagedCheckpointError if unreadable."""
    path = folder / MARKER
    try:
        marker = load(Marker, path.read_bytes().decode(errors="replace"), str(path))
    except FileNotFoundError:
        raise MismatchedCheckpointError(_no_checkpoint(folder)) from None
    except ContractError as error:
        raise DamagedCheckpointError(f"{error}.\n  {_way_out(folder)}") from None
    if unsafe := [file.name for file in marker.files if Path(file.name).name != file.name]:
        raise DamagedCheckpointError(
            f"{path}: {unsafe[0]!r} is not the name of a file beside it.\n  {_way_out(folder)}"
        )
    return marker


def verify(folder: Path, files: Iterable[Stored]) -> None:
    """Compare files on the disk with what the marker says of them. Raises DamagedCheckpointError at the first fault."""
    for wanted in files:
        path = folder / wanted.name
        if not path.is_file():
            raise DamagedCheckpointError(f"{path}: missing, but {MARKER} names it.\n  {_way_out(folder)}")
        if (size := path.stat().st_size) != wanted.bytes:
            raise DamagedCheckpointError(
                f"{path}: {size} bytes, but {wanted.bytes} were written.\n  {_way_out(folder)}"
            )
        if (found := Stored.of(path)).sha256 != wanted.sha256:
            sums = f"SHA-256 {found.sha256[:16]}..., but {wanted.sha256[:16]}... was written"
            raise DamagedCheckpointError(f"{path}: {sums}.\n  {_way_out(folder)}")


def _look_at(folder: Path) -> Complete | None:
    try:
        return Complete(folder, read_marker(folder))
    except MismatchedCheckpointError:
        return None
    except DamagedCheckpointError:
        return Complete(folder, None)


def _require_same_files(draft: Path, marker: Marker) -> None:
    named, present = {file.name for file in marker.files}, {path.name for path in draft.iterdir()}
    if lost := sorted(named - present):
        raise CheckpointError(
            f"{draft / lost[0]}: written by its rank, but rank 0 does not see it. "
            "checkpoint.path must lie on storage that all ranks share."
        )
    if strange := sorted(present - named):
        raise CheckpointError(f"{draft / strange[0]}: written by no rank of this run; another one writes here too.")


def _free_name(folder: Path, step: int) -> Path:
    names = itertools.chain([f"step-{step:08d}"], (f"step-{step:08d}.{again}" for again in itertools.count(1)))
    return next(path for path in map(folder.joinpath, names) if not path.exists())


def _delete(folder: Path) -> None:
    """The rename comes first: a folder that loses its files one by one would look like a damaged checkpoint.

    What cannot be deleted now is a draft's rubbish, and the next writer tries again.
    """
    doomed = folder.parent / f"{_DRAFT}{uuid.uuid4().hex[:8]}-deleted"
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write_durably(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _no_checkpoint(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such checkpoint. {_others(folder)}"
    return f"{folder}: no complete checkpoint, since it holds no file {MARKER}. {_others(folder)}"


def _way_out(folder: Path) -> str:
    return f"Restore it from a copy, or go on from an older one (checkpoint.resume: PATH). {_others(folder)}"


def _others(folder: Path) -> str:
    try:
        names = [p.parent.name for p in sorted(folder.parent.glob(f"step-*/{MARKER}")) if p.parent != folder]
    except OSError:
        names = []
    return f"Complete ones beside it: {', '.join(names) or 'none'}."
