"""What a cluster of real nodes leaves on the machine, under one name, so that nothing of it can be forgotten.

Out: a `Run`: its name is that of its network namespace and of its control groups, and its folder holds everything else.
Programs and mounts need no care: they live in namespaces that die with the test. If the test itself is killed, the next
one finds its folder unlocked (the kernel drops the lock) and removes what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clusterkit import cgroups, netns
from clusterkit.binaries import cache_folder
from clusterkit.locks import one_at_a_time
from clusterkit.progress import Say, say_on_stderr

PREFIX = "ring-e2e-"


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    folder: Path


def runs_folder() -> Path:
    """On the disk of the image cache, whose files nodes link."""
    return cache_folder() / "runs"


@contextlib.contextmanager
def run(say: Say = say_on_stderr) -> Iterator[Run]:
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    this = Run(name, runs_folder() / name)
    with contextlib.ExitStack() as stack:
        with one_at_a_time(runs_folder() / ".lock", say):
            remove_leftovers()
            this.folder.mkdir()
            lock = stack.enter_context((this.folder / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield this
        finally:
            _remove(this)


def remove_leftovers() -> list[str]:
    """What killed tests left; their names. A folder is made first and removed last, so it tells of all the rest."""
    left = [Run(path.name, path) for path in sorted(runs_folder().glob(f"{PREFIX}*"))]
    dead = [each for each in left if not _is_held(each)]
    for each in dead:
        _remove(each)
    return [each.name for each in dead]


def _is_held(run: Run) -> bool:
    try:
        descriptor = os.open(run.folder / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _remove(run: Run) -> None:
    netns.remove(run.name)
    cgroups.remove(run.name)
    shutil.rmtree(run.folder, ignore_errors=True)
