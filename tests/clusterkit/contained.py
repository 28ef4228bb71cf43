"""A command whose processes and mounts end with it, and it with this process, however that ends.

It runs in a process and a mount namespace of its own: when the kernel ends the first process of the former, it ends all
of them, and the mounts of the latter go with the last one. Builders and nodes would otherwise leave both behind.
"""

from __future__ import annotations

from collections.abc import Sequence

_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")


def contained(command: Sequence[str]) -> list[str]:
    """To be started tethered (`ring_worker.tether`); SIGTERM does not end it, SIGKILL does."""
    return [*_ALONE, *command]
