"""Files that are whole or absent, and a lock that a killed holder frees.

A file is written under a name of its own and renamed when its bytes are on the disk, so that a reader, or a preparation
that starts again, never meets half of one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that appears as `path` when the block ends well, and leaves nothing when it does not.

    `durable`: not before its bytes are on the disk, so that it is whole after a loss of power too.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    with atomic_file(path, durable) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writers left in `folder`. Only for the holder of its lock."""
    for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of file `path` between processes, also of other machines on a shared file system.

    `on_wait` is called once if another process holds it. The system frees the lock of a process that dies.
    """
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
