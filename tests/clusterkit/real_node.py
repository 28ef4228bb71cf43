"""One node: containerd and a kubelet in a mount and a process namespace of their own, so it is lost as a machine is.

`kill` is the power cord: both programs, all containers and all mounts go at once, and nobody says goodbye. `start`
boots it again, with the same disk. `run` executes a command where the node's programs are.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clusterkit import cgroups, node_init
from clusterkit.component import Component
from clusterkit.contained import contained
from clusterkit.host import search_path
from clusterkit.images import PAUSE, Images
from clusterkit.node_config import SOCKET, NodePlan, cni_config, containerd_config, kubelet_config
from clusterkit.oci_archive import write_archive
from clusterkit.progress import tail
from processes import alive, descendants, wait_until

STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of what a node runs; runc and the CNI plugins are the machine's."""

    kubelet: Path
    containerd: Path
    shim: Path
    ctr: Path


@dataclass(frozen=True, slots=True)
class Membership:
    """How a node joins its cluster."""

    kubeconfig: Path
    authority: Path


class NodeError(Exception):
    """A command on a node failed; the text has what it said."""


class RealNode:
    """`shared`: a folder that all nodes see. Without a membership it is a container store only, with no kubelet."""

    def __init__(self, plan: NodePlan, shared: Path, programs: Programs, membership: Membership | None = None) -> None:
        self.plan = plan
        self._programs = programs
        self._shared = shared
        self._membership = membership
        self._component = Component(plan.name, self._command(), plan.log("init"), self._serves)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def alive(self) -> bool:
        return self._component.alive

    def start(self) -> None:
        """Returns when containerd serves; the kubelet then still has to report the node ready."""
        self._write()
        if self._membership:
            cgroups.make(self.plan.cgroup)
        self._component.start()

    def kill(self) -> None:
        """Returns when the last process of the node is gone."""
        left = descendants(self._component.pid) if self._component.pid else {}
        self._component.kill()
        wait_until(lambda: not any(map(alive, left)), STOP_SECONDS, f"{self.name}: {left} ended")

    def run(self, *command: str, stdin: IO[bytes] | None = None) -> str:
        """Raises NodeError."""
        said = subprocess.run(self._entered(command), stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True)
        if said.returncode:
            raise NodeError(
                f"{self.name}: {' '.join(command)} ended with {said.returncode}:\n{said.stdout}{said.stderr}"
            )
        return said.stdout

    def ctr(self, *arguments: str) -> str:
        return self.run(str(self._programs.ctr), "--namespace=k8s.io", *arguments)

    def import_images(self, images: Images, known: set[str]) -> None:
        """`known`: digests of blobs that its store has. Raises NodeError."""
        command = [str(self._programs.ctr), "--namespace=k8s.io", "images", "import", "--snapshotter=overlayfs", "-"]
        process = subprocess.Popen(
            self._entered(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it gave up, and says why
            write_archive(images, known, process.stdin)
        said, _ = process.communicate()
        if process.returncode:
            raise NodeError(f"{self.name}: importing images ended with {process.returncode}:\n{said.decode()}")

    def complaints(self) -> str:
        """The end of each log."""
        logs = (self.plan.log(name) for name in ("init", "containerd", "kubelet"))
        return "\n".join(f"{log}:\n{tail(log)}" for log in logs if log.exists())

    def _entered(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self._init()}", "--mount", "--pid", "--", *command]

    def _init(self) -> int:
        """The node's first process, by its number on this machine."""
        assert self._component.pid is not None, f"{self.name} was never started"
        script = str(node_init.__file__)
        return next(pid for pid, line in descendants(self._component.pid).items() if script in line)

    def _serves(self) -> bool:
        """Its /run is a folder here."""
        return (self.plan.folder / "run" / Path(SOCKET).relative_to("/run")).exists()

    def _command(self) -> list[str]:
        path = f"PATH={self._programs.shim.parent}:{search_path()}"
        init = [sys.executable, str(node_init.__file__), str(self.plan.folder / "node.json")]
        return ["env", path, *contained(init)]

    def _write(self) -> None:
        plan = self.plan
        plan.cni_folder.mkdir(parents=True, exist_ok=True)
        (plan.cni_folder / "10-ring.conflist").write_text(cni_config(plan))
        (plan.folder / "containerd.toml").write_text(containerd_config(PAUSE, plan.cni_folder))
        # An earlier boot's socket would say that this one serves already.
        (plan.folder / "run" / Path(SOCKET).relative_to("/run")).unlink(missing_ok=True)
        programs = [self._containerd(), *([self._kubelet(self._membership)] if self._membership else [])]
        spec = {"node": str(plan.folder), "shared": str(self._shared), "programs": programs}
        (plan.folder / "node.json").write_text(json.dumps(spec))

    def _containerd(self) -> dict[str, Any]:
        command = [str(self._programs.containerd), "--config", str(self.plan.folder / "containerd.toml")]
        return {"name": "containerd", "command": command, "log": str(self.plan.log("containerd"))}

    def _kubelet(self, membership: Membership) -> dict[str, Any]:
        config = self.plan.folder / "kubelet.yaml"
        config.write_text(kubelet_config(self.plan, membership.authority))
        command = [
            str(self._programs.kubelet),
            f"--config={config}",
            f"--kubeconfig={membership.kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.plan.address}",
            "--cert-dir=/var/lib/kubelet/pki",
        ]
        return {"name": "kubelet", "command": command, "log": str(self.plan.log("kubelet")), "waits_for": SOCKET}
