"""The run folder: what is in it, whose it is, and when it may be used again.

    manifest.yaml  plan.json  ranks.json     what was asked, and what came of it (ranks.json: the last epoch)
    metrics.jsonl  report.json  loss.png     by rank 0 of the worker
    checkpoints/  logs/  pods/               pods/: the pods' volumes

A folder is taken for a run's only when it has both a manifest and a plan, and everything in it is in this list:
`--overwrite` deletes nothing else. A run that makes room is set aside first, in a hidden folder, and deleted when the
new one's first epoch begins; a start that comes to nothing before that puts it back (`settle`). A lock keeps two
`ringctl` off the same folder; the kernel gives it back however the first one ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ring_operator.errors import UserError, refuse
from ring_operator.local.changes import changed_fields, manifest_of
from ring_operator.local.files import last_lines, write_whole
from ring_operator.spec import TrainingJob
from ring_worker.contract import ContractError, MetricsLine, RankTable

MANIFEST, PLAN, RANKS = "manifest.yaml", "plan.json", "ranks.json"
METRICS, REPORT, PICTURE = "metrics.jsonl", "report.json", "loss.png"
CHECKPOINTS, LOGS, PODS = "checkpoints", "logs", "pods"
_LOCK = ".lock"
_ASIDE, _MOVING = ".before", ".before.moving"  # the run that made room: all of it, or on its way there or back
FAILED = "failed-start"  # in the logs of a run that was put back: those of the start that failed
_COMPLETE = "COMPLETE"  # in a checkpoint's folder when all of it is there
_STEP = re.compile(r"step-([0-9]+)(\.[0-9]+)?")  # the worker's names; a person may keep others beside them
_OWN = frozenset({_LOCK, _ASIDE, _MOVING})
_RECORDS = frozenset({MANIFEST, PLAN, RANKS, METRICS, REPORT, PICTURE, CHECKPOINTS, LOGS, PODS})


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier starts of this run left: the last epoch and the failures so far."""

    epoch: int = 0
    restarts: int = 0


class RunFolder:
    """A folder that this process has to itself from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: BinaryIO | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def open(self) -> None:
        """Make the folder and lock it. Raises UserError where another `ringctl` has it, or it cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self / _LOCK).open("ab")
        except OSError as error:
            raise refuse("--output", f"{self.path}: {error.strerror}", "Name a folder that can be written.") from None
        if not _lock_alone(lock, self / _LOCK):
            lock.close()
            remedy = "Wait for it, stop it, or name another folder with --output."
            raise refuse("--output", f"{self.path} is in use by another ringctl", remedy)
        self._lock = lock
        self.settle()  # a `ringctl` that was killed left it to us

    def close(self) -> None:
        """Give the folder back; where no run was begun in it, leave no trace."""
        if self._lock is None:
            return
        self.settle()
        if not self.holds_run:
            (self / _LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()
        self._lock.close()
        self._lock = None

    def entries(self) -> set[str]:
        """All but the lock, a run that is set aside, and the drafts that a kill left behind."""
        return {entry.name for entry in self.path.iterdir() if entry.name not in _OWN and not _is_draft(entry.name)}

    @property
    def holds_run(self) -> bool:
        """A manifest alone may be one that a person wrote."""
        return (self / MANIFEST).is_file() and (self / PLAN).is_file()

    @property
    def began(self) -> bool:
        """Whether ranks were ever started; a start that failed before leaves nothing that is worth keeping."""
        return any((self / name).exists() for name in (RANKS, METRICS, REPORT)) or self.last_checkpoint() is not None

    def describe(self) -> str:
        """What the run in here came to, for a person."""
        parts = []
        if (step := self.last_step()) is not None:
            parts.append(f"step {step}")
        parts.append("no checkpoint" if (saved := self.last_checkpoint()) is None else f"checkpoint of step {saved}")
        if (self / REPORT).exists():
            parts.append("finished")
        return ", ".join(parts)

    def last_step(self) -> int | None:
        """Of the last whole line of the metrics."""
        for line in reversed(last_lines(self / METRICS, 2).splitlines()):
            with contextlib.suppress(ContractError):
                return MetricsLine.from_json(line).step
        return None

    def last_checkpoint(self) -> int | None:
        """Step of the newest complete checkpoint: the one written last, which need not be that of the highest step."""
        found = (self / CHECKPOINTS).glob(f"step-*/{_COMPLETE}")
        markers = [path for path in found if _STEP.fullmatch(path.parent.name)]
        newest = max(((_serial(path), _step(path)) for path in markers), default=None)
        return newest[1] if newest else None

    def past(self) -> Past:
        """Epochs are counted on over all starts of a run."""
        with contextlib.suppress(OSError, ContractError):
            table = RankTable.from_json((self / RANKS).read_text(encoding="utf-8"))
            return Past(table.epoch, table.restarts)
        return Past()

    def refuse_use(self) -> None:
        """Raises UserError unless the folder is empty, or holds but a start that failed before its first epoch."""
        if self.holds_run and not self.began:
            self.clear()
        if self.holds_run:
            remedy = "Go on with it (--resume), start over (--overwrite), or name another folder (--output)."
            raise refuse("--output", f"{self.path} already holds a run ({self.describe()})", remedy)
        if entries := self.entries():
            raise _not_a_run(self.path, entries)

    def clear(self) -> None:
        """Delete the run in here. Raises UserError, with nothing deleted, where there is anything else."""
        self._delete(self._run_entries())

    def set_aside(self) -> None:
        """Make room for another run, until `settle`. Raises UserError, with nothing moved, as `clear` does."""
        if entries := self._run_entries():
            self._move(entries, self.path, self / _MOVING)
            (self / _MOVING).rename(self / _ASIDE)

    def settle(self) -> bool:
        """Delete the run that was set aside if the new one has begun, else put it back. Whether it was put back."""
        if (self / _ASIDE).is_dir() and not (self / RANKS).exists():
            self._keep_logs()
            self._delete(self.entries())
            (self / _ASIDE).rename(self / _MOVING)
        shutil.rmtree(self / _ASIDE, ignore_errors=True)
        if not (self / _MOVING).is_dir():
            return False
        self._move({entry.name for entry in (self / _MOVING).iterdir()}, self / _MOVING, self.path)
        (self / _MOVING).rmdir()
        return True

    def _keep_logs(self) -> None:
        """What a failed start said goes to the logs of the run that is put back."""
        kept = self / _ASIDE / LOGS / FAILED
        if (self / LOGS).is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self / LOGS, kept)

    @staticmethod
    def _move(names: set[str], source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in names:
            (source / name).rename(target / name)

    def _run_entries(self) -> set[str]:
        """Names of what the run in here consists of. Raises UserError where there is anything else."""
        entries = self.entries()
        if foreign := entries - _RECORDS:
            raise _not_a_run(self.path, foreign)
        if entries and not self.holds_run:
            raise _not_a_run(self.path, entries)
        return entries

    def _delete(self, entries: set[str]) -> None:
        for name in sorted(entries, key=lambda name: name in (MANIFEST, PLAN)):  # the marks of a run go last
            path = self / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def check_resume(self, job: TrainingJob) -> None:
        """Raises UserError where there is no run, or one that was asked for something else."""
        if not self.holds_run:
            raise refuse("--resume", f"{self.path} holds no run", "Leave --resume out to start one.")
        if not self.began:
            return  # nothing was learnt that a changed field could belie
        if job.spec.checkpoint.resume == "none":
            remedy = "Set it to latest, or leave it out."
            raise refuse("spec.checkpoint.resume", "none, but --resume goes on from a checkpoint", remedy)
        if faults := changed_fields(self._request(), manifest_of(job)):
            raise UserError(faults)
        steps, saved = job.spec.training.steps, self.last_checkpoint() or 0
        if steps < saved and self.resumed(job).spec.checkpoint.resume == "latest":
            remedy = f"Raise it to more than {saved}, or start over with --overwrite."
            raise refuse("spec.training.steps", f"{steps}, but the run in this folder is at step {saved}", remedy)

    def resumed(self, job: TrainingJob) -> TrainingJob:
        """`job` as `--resume` means it: a checkpoint.resume that has been obeyed already does not count again."""
        before = self._request().get("spec", {}).get("checkpoint", {}).get("resume")
        if before != job.spec.checkpoint.resume:
            return job
        checkpoint = job.spec.checkpoint.model_copy(update={"resume": "latest"})
        return job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoint": checkpoint})})

    def _request(self) -> dict[str, Any]:
        """The manifest that the run in here was started with."""
        try:
            before = yaml.safe_load((self / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            remedy = "Start over with --overwrite."
            raise refuse("--resume", f"{self / MANIFEST} cannot be read: {error}", remedy) from None
        if not isinstance(before, dict):
            raise refuse("--resume", f"{self / MANIFEST} holds no manifest", "Start over with --overwrite.")
        return before

    def write_request(self, job: TrainingJob, plan: Any) -> None:
        """`plan`: as plain JSON values."""
        for name in (LOGS, CHECKPOINTS, PODS):
            (self / name).mkdir(exist_ok=True)
        write_whole(self / MANIFEST, yaml.safe_dump(manifest_of(job), sort_keys=False, allow_unicode=True))
        write_whole(self / PLAN, json.dumps(plan, indent=1) + "\n")


def _step(marker: Path) -> int:
    match = _STEP.fullmatch(marker.parent.name)
    assert match is not None
    return int(match[1])


def _serial(marker: Path) -> int:
    """The worker counts the checkpoints that it writes; 0 where the marker cannot be read."""
    try:
        return int(json.loads(marker.read_text(encoding="utf-8"))["serial"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _lock_alone(lock: BinaryIO, path: Path) -> bool:
    """Whether the lock was free, and is still the file at `path`, not one that its last owner has just removed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except OSError:
        return False


def _is_draft(name: str) -> bool:
    return any(name.startswith(f".{record}.") for record in _RECORDS)


def _not_a_run(path: Path, entries: set[str]) -> UserError:
    some = ", ".join(sorted(entries)[:3]) + (", ..." if len(entries) > 3 else "")
    return refuse("--output", f"{path} is not a run's folder: it holds {some}", "Name a new or empty folder.")
