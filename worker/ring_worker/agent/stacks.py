"""What every rank is doing: the Python stacks of all its threads, for `GET /stacks`, also of ranks that hang.

In: the rank processes of this pod. Out: one text with rank, pid, state of the process and its stacks. All are asked at
once by a signal (`ring_worker.stacks`) and write to memory that the agent shares with them; nothing marks the end of an
answer, so it is over when it has stopped growing. A rank that cannot answer costs `ANSWER_SECONDS` and is named, with
the reason as far as /proc knows it.
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ring_worker.stacks import STACKS_SIGNAL

ANSWER_SECONDS = 2.5
RANK_BYTES = 32 * 1024  # of one rank's stacks
_QUIET_SECONDS = 0.25  # without growth: the answer is whole
_LOOK_SECONDS = 0.02
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in the kernel, cannot be interrupted",
    "T": "stopped",
    "t": "traced by a debugger",
    "Z": "dead",
}


class StackFile:
    """Memory without a name, which a rank inherits and appends to. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._file = _unnamed()
        self._lock = threading.Lock()  # a descriptor closed in the midst of a call may be another file's by then
        self.descriptor = self._file.fileno()

    def clear(self) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.truncate(0)

    def size(self) -> int:
        with self._lock:
            return 0 if self._file.closed else os.fstat(self.descriptor).st_size

    def text(self) -> str:
        """The last RANK_BYTES: the main thread comes last."""
        with self._lock:
            if self._file.closed:
                return ""
            size = os.fstat(self.descriptor).st_size
            kept = os.pread(self.descriptor, RANK_BYTES, max(0, size - RANK_BYTES))
        cut = f"... {size - RANK_BYTES} bytes before this are left out\n" if size > RANK_BYTES else ""
        return cut + kept.decode("utf-8", "replace")

    def close(self) -> None:
        with self._lock:
            self._file.close()


class RankStacks:
    """One rank that can be asked."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], file: StackFile) -> None:
        self.number = number
        self._process = process
        self._file = file
        self._size = 0
        self._changed = 0.0

    def ask(self) -> None:
        self._file.clear()
        self._size, self._changed = 0, time.monotonic()
        self._process.send_signal(STACKS_SIGNAL)

    def settled(self) -> bool:
        """Whether nothing more is to be expected: it has answered, is gone, or is stopped."""
        size, now = self._file.size(), time.monotonic()
        if size != self._size:
            self._size, self._changed = size, now
        if size:
            return now - self._changed >= _QUIET_SECONDS
        return self._process.poll() is not None or _state(self._process.pid) in ("T", "t", "Z")

    def text(self) -> str:
        """Its part of the page; after `settled`, or when the time is over."""
        head = f"rank {self.number} pid {self._process.pid}"
        if self._process.poll() is not None:
            return f"{head}: has ended with exit code {self._process.returncode}\n"
        state = _state(self._process.pid)
        head = f"{head} state {state} ({_STATES.get(state, 'unknown')})"
        stacks = self._file.text()
        return f"{head}\n{stacks}" if stacks else f"{head}: {_silence(state, self._process.pid)}\n"


def collect(ranks: Sequence[RankStacks]) -> str:
    """Ask all ranks at once, wait for the last answer or ANSWER_SECONDS, and write them one below the other."""
    for rank in ranks:
        rank.ask()
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        settled = [rank.settled() for rank in ranks]  # all of them: each notes when it last grew
        if all(settled):
            break
        time.sleep(_LOOK_SECONDS)
    return "\n".join(rank.text() for rank in ranks)


def _unnamed() -> io.FileIO:
    """A file that is gone with its last holder; whoever writes to it appends."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stacks")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return io.FileIO(descriptor, "r+")


def _state(pid: int) -> str:
    """One letter as ps shows it; `?` where /proc does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "?"


def _silence(state: str, pid: int) -> str:
    if state in ("T", "t"):
        return "stopped, no answer"
    if state == "D":
        return f"no answer in {ANSWER_SECONDS} s: it waits for a device or a file system"
    if not _listens(pid):
        return "no answer: it has not come so far as to give one; it is starting"
    return f"no answer in {ANSWER_SECONDS} s"


def _listens(pid: int) -> bool:
    """Whether the process has a handler for the signal; where /proc does not tell, it is taken to have one."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration, ValueError):
        return True
    return bool(caught >> (STACKS_SIGNAL - 1) & 1)
