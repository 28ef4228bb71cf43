"""Run a command that dies with its parent: `python -m ring_worker.tether PARENT_PID COMMAND...`

A rank that outlives its agent goes on training into the same checkpoints as its successor; so ranks (and, in local
mode, the agents) ask the kernel for SIGKILL when their parent goes. The request is made in a process of its own that
then becomes the command (same pid; the request survives exec), and not between fork and exec of the parent, whose
other threads may hold any lock at that moment. Linux only (prctl); elsewhere the command runs untethered.

The kernel watches the *thread* that started the child: start it from one that lives as long as the process does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127  # as a shell says it


def tethered(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` tethered to the calling process."""
    return [sys.executable, "-m", "ring_worker.tether", str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> int:
    parent, command = int(arguments[0]), list(arguments[1:])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the request
            return 128 + signal.SIGKILL
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
