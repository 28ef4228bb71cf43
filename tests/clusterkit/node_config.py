"""What a node's programs read. Pure: from a node's name, addresses and files to the text of its configuration.

Paths are those that the node sees (`clusterkit.node_init`): its own /var and /run, laid over the machine's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusterkit.host import CNI_PLUGINS
from clusterkit.netns import BRIDGE, POD_NETWORK, node_address, pod_range

SOCKET = "/run/containerd/containerd.sock"
KUBELET_PORT = 10250
LEASE_SECONDS = 8  # a kubelet renews its lease four times as often


@dataclass(frozen=True, slots=True)
class NodePlan:
    """`folder`: all of its files, on this machine. `cgroup`: its control groups, below each root."""

    index: int
    name: str
    folder: Path
    cgroup: str

    @property
    def address(self) -> str:
        return node_address(self.index)

    @property
    def cni_folder(self) -> Path:
        return self.folder / "cni"

    def log(self, program: str) -> Path:
        return self.folder / f"{program}.log"


def containerd_config(pause_image: str, cni_folder: Path) -> str:
    return f"""version = 3
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause_image}"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE a container's score cannot be lower than containerd's.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{CNI_PLUGINS}"]
  conf_dir = "{cni_folder}"
"""


def cni_config(plan: NodePlan) -> str:
    """One bridge for all nodes: pods of one reach those of the other as on a flat network."""
    first, last = pod_range(plan.index)
    addresses = {"subnet": POD_NETWORK, "rangeStart": first, "rangeEnd": last}
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[addresses]]},
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "ring", "plugins": [bridge]})


def kubelet_config(plan: NodePlan, authority: Path) -> str:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "address": plan.address,
        "port": KUBELET_PORT,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "nodeStatusUpdateFrequency": "2s",
        **_cgroups(plan),
        **_disk(),
    }
    return yaml.safe_dump(config)


def _cgroups(plan: NodePlan) -> dict[str, Any]:
    return {
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
    }


def _disk() -> dict[str, Any]:
    """How full the machine's disk is, is not the node's affair: it neither evicts pods nor deletes images."""
    signals = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
    return {
        "evictionHard": dict.fromkeys(signals, "0%"),
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "localStorageCapacityIsolation": False,
    }
