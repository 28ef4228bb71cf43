"""Control groups of a node's own, beside the machine's: made in every hierarchy, removed with all below them.

Works with version 1 (a hierarchy for each controller), version 2 (one for all) and both at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

REMOVE_SECONDS = 10.0


def hierarchies(mountinfo: str) -> list[Path]:
    """Where control groups are mounted, from the text of /proc/self/mountinfo; a kubelet wants its own in each."""
    found = re.findall(r"^\d+ \d+ \S+ / (\S+) .* - cgroup2? ", mountinfo, re.MULTILINE)
    return [Path(path) for path in found]


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def make(name: str) -> None:
    """`name`: a path below each root, such as `ring-e2e-1/node-a`."""
    for root in _mounted():
        folder = root
        for part in Path(name).parts:
            parent, folder = folder, folder / part
            _delegate(parent)
            folder.mkdir(exist_ok=True)
            _inherit_cpus(parent, folder)


def _delegate(parent: Path) -> None:
    """Version 2 gives children only the controllers that their parent names."""
    offered = parent / "cgroup.controllers"
    if offered.exists():
        for controller in offered.read_text().split():
            with contextlib.suppress(OSError):  # one that is still bound to version 1
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpus(parent: Path, folder: Path) -> None:
    """In version 1 a new cpuset is empty, and an empty one takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder / name).exists() and not (folder / "cgroup.controllers").exists():
            (folder / name).write_text((parent / name).read_text())


def remove(name: str) -> None:
    """Waits for the last processes to be gone; what stays then is said by the OSError."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for root in _mounted():
        for folder, _, _ in os.walk(root / name, topdown=False):
            _remove(Path(folder), deadline)


def _remove(folder: Path, deadline: float) -> None:
    while True:
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
