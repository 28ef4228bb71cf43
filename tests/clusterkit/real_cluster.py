"""The cluster that end-to-end tests run on: real nodes of their own, or the cluster that KUBECONFIG names.

In: the environment. Out: a `RealCluster`, with what tests need of either. A cluster that is given must have two nodes,
the images (`RING_OPERATOR_IMAGE`, `RING_WORKER_IMAGE`: their names there) and, for checkpoints that outlive a pod, one
folder that all nodes see as `/var/lib/ring-shared`, writable for user 65532; with kind, an extra mount does that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterkit.binaries import binary
from clusterkit.cluster import given_kubeconfig
from clusterkit.images import OPERATOR, WORKER
from clusterkit.kubectl import Kubectl
from clusterkit.node_init import SHARED
from clusterkit.progress import Say, say_on_stderr
from clusterkit.real_nodes import Prepared, RealNodes, prepare

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RealCluster:
    """`own` None: it is not ours, and nothing of it may be killed."""

    kubeconfig: Path
    kubectl: Kubectl
    operator_image: str
    worker_image: str
    own: RealNodes | None = None

    def node_names(self) -> list[str]:
        """Those that take pods."""
        nodes = self.kubectl.json("get", "nodes")["items"]
        return sorted(node["metadata"]["name"] for node in nodes if not node["spec"].get("taints"))

    def shared_volume(self, namespace: str, name: str) -> list[Manifest]:
        """Manifests of a claim that all pods of the namespace may write, on any node, and of its volume."""
        whole = f"{namespace}-{name}"
        if self.own is not None:
            self.own.shared_folder(whole)
        return volume_manifests(namespace, name, SHARED / whole if self.own is not None else SHARED)


@contextlib.contextmanager
def open_real_cluster(prepared: Prepared | None = None, say: Say = say_on_stderr) -> Iterator[RealCluster]:
    """Raises HostError, BuildError, CommandError, ComponentError, NodeError, ClusterError."""
    given = given_kubeconfig()
    if given is not None:
        operator, worker = os.environ.get("RING_OPERATOR_IMAGE", OPERATOR), os.environ.get("RING_WORKER_IMAGE", WORKER)
        yield RealCluster(given, Kubectl(binary("kubectl", say=say), given), operator, worker)
        return
    with RealNodes(prepared or prepare(say), say=say) as nodes:
        yield RealCluster(nodes.plane.kubeconfig, nodes.plane.kubectl, OPERATOR, WORKER, nodes)


def volume_manifests(namespace: str, name: str, path: Path) -> list[Manifest]:
    whole = f"{namespace}-{name}"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": {"storage": "10Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(path), "type": "Directory"},
        "claimRef": {"namespace": namespace, "name": name},
    }
    claim = {**common, "volumeName": whole, "resources": {"requests": {"storage": "10Gi"}}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": whole}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": namespace, "name": name},
            "spec": claim,
        },
    ]
