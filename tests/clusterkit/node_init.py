"""The first process of a node: `python node_init.py SPEC`, in a mount and a process namespace of its own.

In: a JSON file, `{"node": FOLDER, "shared": FOLDER, "programs": [{"name", "command", "log", "waits_for"}]}`. It gives
the node a /var and a /run of its own, starts the programs in order, starts again what ends, and reaps what is orphaned,
as a machine's init does. With it goes the whole node: programs, containers and mounts. Standard library only.

/var is the machine's with the node's own files laid over it: programs find their usual folders there (some cannot be
told others), and the machine keeps its own. What `node` holds stays when the node is started again, but for /run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MACHINE = Path("/run/ring-node")  # what is mounted from outside, reached before anything is laid over it
SHARED = Path("/var/lib/ring-shared")
_OWN = {"containerd": Path("/var/lib/containerd"), "kubelet": Path("/var/lib/kubelet")}
# What a kubelet sets for the whole machine: it gets files of the node's own to set.
_TUNED = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
AGAIN_SECONDS = 1.0


def mount_all(node: Path, shared: Path) -> None:
    # Mounts that containers make are to be seen by the kubelet and the other way round, as on a machine.
    _run("mount", "--make-rshared", "/")
    run = node / "run"
    shutil.rmtree(run, ignore_errors=True)
    for folder in ("run/ring-node/node", "run/ring-node/shared", "var", "work", *_OWN):
        (node / folder).mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(node), str(run / "ring-node/node"))
    _run("mount", "--bind", str(shared), str(run / "ring-node/shared"))
    _run("mount", "--rbind", str(run), "/run")
    inside = MACHINE / "node"
    layers = f"lowerdir=/var,upperdir={inside / 'var'},workdir={inside / 'work'}"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, "/var")
    for source, target in ((MACHINE / "shared", SHARED), *((inside / name, path) for name, path in _OWN.items())):
        target.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(source), str(target))
    _hide_tunables(inside / "tunables")


def _hide_tunables(folder: Path) -> None:
    for name in _TUNED:
        real, own = Path("/proc/sys") / name, folder / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(real.read_text())
        _run("mount", "--bind", str(own), str(real))


def _run(*command: str) -> None:
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"{' '.join(command)} failed: {said.stderr.strip()}")


def supervise(programs: Sequence[dict[str, Any]]) -> None:
    running: dict[int, tuple[subprocess.Popen[bytes], dict[str, Any]]] = {}

    def start(program: dict[str, Any]) -> None:
        with open(program["log"], "ab") as log:
            process = subprocess.Popen(program["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        running[process.pid] = (process, program)

    for program in programs:
        _wait_for(program.get("waits_for"))
        start(program)
    while True:
        pid, status = os.wait()
        if pid in running:
            _, program = running.pop(pid)
            print(f"{program['name']} ended with {os.waitstatus_to_exitcode(status)}, started again", flush=True)
            time.sleep(AGAIN_SECONDS)
            start(program)


def _wait_for(path: str | None) -> None:
    while path and not Path(path).exists():
        time.sleep(0.05)


def main(arguments: Sequence[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text())
    mount_all(Path(spec["node"]), Path(spec["shared"]))
    supervise(spec["programs"])


if __name__ == "__main__":
    main(sys.argv[1:])
