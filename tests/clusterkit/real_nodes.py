"""Real nodes on this machine: `with RealNodes(prepare()) as nodes: nodes.plane.kubectl("get", "nodes")`.

In: how many nodes. Out: a control plane (`clusterkit.control_plane`), nodes with kubelet, containerd and runc, the
project's images on each of them, kube-proxy for services, and a folder that all nodes see for volumes that many pods
write. All of it is in a network namespace, this process too as long as the context lasts; nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from clusterkit import netns
from clusterkit.binaries import binary
from clusterkit.commands import Settings
from clusterkit.component import Component
from clusterkit.control_plane import PROGRAMS as CONTROL_PLANE_PROGRAMS
from clusterkit.control_plane import ControlPlane
from clusterkit.host import check_host, search_path
from clusterkit.image_store import filled_store, give, known_blobs
from clusterkit.images import Images, build_images
from clusterkit.node_config import NodePlan
from clusterkit.progress import Say, say_on_stderr
from clusterkit.real_node import Membership, Programs, RealNode
from clusterkit.run_folder import run

READY_SECONDS = 120.0
GRACE_SECONDS = 16  # a node whose lease is older is lost; four renewals, since the machine may be busy
OWNER = 65532  # of the images' user


class ClusterError(Exception):
    """The cluster did not come up; the text has the end of the logs."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is built once and kept. `store`: containerd's, with the images in it."""

    programs: Programs
    proxy: Path
    images: Images
    store: Path


def prepare(say: Say = say_on_stderr) -> Prepared:
    """Raises HostError, BuildError, CommandError, NodeError, ComponentError."""
    check_host()
    names = ("kubelet", "containerd", "containerd-shim-runc-v2", "ctr")
    programs = Programs(*(binary(name, say=say) for name in names))
    for name in CONTROL_PLANE_PROGRAMS:
        binary(name, say=say)
    images = build_images(say)
    return Prepared(programs, binary("kube-proxy", say=say), images, filled_store(images, programs, say))


class RealNodes:
    """`extra`: further flags of the control plane by component."""

    plane: ControlPlane
    nodes: tuple[RealNode, ...]

    def __init__(
        self,
        prepared: Prepared,
        nodes: int = 2,
        extra: Mapping[str, tuple[str, ...]] | None = None,
        say: Say = say_on_stderr,
    ) -> None:
        self._prepared = prepared
        self._count = nodes
        self._say = say
        self._extra = {"kube-controller-manager": ("--node-monitor-period=1s",), **(extra or {})}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RealNodes:
        try:
            self._run = self._stack.enter_context(run(self._say))
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def namespace(self) -> str:
        """Of the network: `nsenter --net=/run/netns/NAME` goes in."""
        return self._run.name

    def shared_folder(self, name: str) -> Path:
        """A folder on this machine that every node has in `SHARED`, and that the images' user may write."""
        folder = self._run.folder / "shared" / name
        folder.mkdir(exist_ok=True)
        os.chown(folder, OWNER, OWNER)
        return folder

    def wait_ready(self, *names: str) -> None:
        """The nodes of these names, or all. Raises ClusterError."""
        wanted = set(names or (node.name for node in self.nodes))
        deadline = time.monotonic() + READY_SECONDS
        while not wanted <= (ready := self.ready_nodes()):
            if time.monotonic() > deadline:
                late = [node for node in self.nodes if node.name in wanted - ready]
                raise ClusterError("\n".join(f"{n.name} was not ready in time.\n{n.complaints()}" for n in late))
            time.sleep(0.3)

    def wait_lost(self, name: str, seconds: float) -> None:
        """Until the control plane takes the node for lost. Raises ClusterError."""
        deadline = time.monotonic() + seconds
        while name in self.ready_nodes():
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} still counts as ready after {seconds:.0f} s")
            time.sleep(0.3)

    def ready_nodes(self) -> set[str]:
        template = '{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        lines = self.plane.kubectl("get", "nodes", f"--output=jsonpath={template}").splitlines()
        return {line.removesuffix("=True") for line in lines if line.endswith("=True")}

    def _start(self) -> None:
        (self._run.folder / "shared").mkdir()
        netns.make(self._run.name, self._count)
        self._stack.enter_context(netns.inside(self._run.name))
        settings = Settings(address=netns.SERVER_ADDRESS, node_grace_seconds=GRACE_SECONDS, extra=self._extra)
        self.plane = self._stack.enter_context(ControlPlane(settings, self._run.folder / "plane", self._say))
        self._start_proxy(settings.service_cidr)
        self.nodes = tuple(self._node(index) for index in range(self._count))
        for node in self.nodes:
            self._boot(node)
        self.wait_ready()

    def _boot(self, node: RealNode) -> None:
        give(self._prepared.store, node.plan.folder / "containerd")
        self._stack.callback(node.kill)
        node.start()
        node.import_images(self._prepared.images, known_blobs(self._prepared.store))

    def _node(self, index: int) -> RealNode:
        name = f"node-{chr(ord('a') + index)}"
        plan = NodePlan(index, name, self._run.folder / name, f"{self._run.name}/{name}")
        kubeconfig = self.plane.kubeconfig_for(f"system:node:{name}", ["system:nodes"])
        membership = Membership(kubeconfig, self.plane.files.authority.certificate)
        return RealNode(plan, self._run.folder / "shared", self._prepared.programs, membership)

    def _start_proxy(self, service_cidr: str) -> None:
        """One for all nodes, as they share the network. Its answers come back through it even between neighbours."""
        command = [
            *("env", f"PATH={search_path()}", str(self._prepared.proxy)),
            f"--kubeconfig={self.plane.kubeconfig_for('system:kube-proxy')}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={netns.POD_NETWORK}",
            "--masquerade-all",
            "--hostname-override=node-a",
            # Settings of the machine's own that a namespace cannot change.
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s"),
            "--conntrack-tcp-timeout-close-wait=0s",
        ]
        proxy = Component("kube-proxy", command, self._run.folder / "kube-proxy.log", lambda: True)
        proxy.start()
        self._stack.callback(proxy.kill)
