"""What this machine has, found without torch: the cores this process may use, the GPUs it may see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ring_operator.plan import Machines

_LISTING_SECONDS = 10


def find_machines(nodes: int, gpus: Sequence[str]) -> Machines:
    """This machine playing `nodes` nodes, each with its share of the cores and of the GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machines(nodes=nodes, gpus_per_node=len(gpus) // nodes, cpus_per_node=max(1, cores // nodes))


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them, all of the machine where it is not set."""
    return select_gpus(_installed_gpus(), environment.get("CUDA_VISIBLE_DEVICES"))


def select_gpus(installed: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """What CUDA takes of `visible`: names in order, up to the first that is not there. `installed`: their UUIDs."""
    if visible is None:
        return tuple(str(index) for index in range(len(installed)))
    chosen: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        is_index = name.isascii() and name.isdecimal() and int(name) < len(installed)
        is_uuid = bool(name) and any(uuid.startswith(name) for uuid in installed)
        if not (is_index or is_uuid) or name in chosen:
            break
        chosen.append(name)
    return tuple(chosen)


def parse_listing(text: str) -> tuple[str, ...]:
    """UUIDs in the output of `nvidia-smi -L`."""
    return tuple(re.findall(r"^GPU \d+: .*\(UUID: ([^)]+)\)$", text, flags=re.MULTILINE))


def _installed_gpus() -> tuple[str, ...]:
    """By `nvidia-smi -L`; where that is missing, one for each device file, without its UUID."""
    if shutil.which("nvidia-smi"):
        try:
            listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_LISTING_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return ()
        return parse_listing(listing.stdout) if listing.returncode == 0 else ()
    return tuple(path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*")))
