"""Well-known labels that say where a node is -> the step of the network that each of them names.

Every family is sorted into one ladder of steps, widest first, so that clusters may mix families: a leaf switch that
Topograph found and a rack that a cloud names are both `rack`. Steps that nobody labels are no levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CLIQUE = "nvidia.com/gpu.clique"
_TIER = re.compile(r"fabric\.topograph\.run/tier-([0-9]{1,2})")
_NO_CLUSTER = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, order=True, slots=True)
class Step:
    """`width`: larger is wider. `expected`: a GPU node without it is at an unknown place.

    Otherwise to be without it is common and says something: such a node shares no NVLink domain with any other.
    """

    width: int
    name: str
    expected: bool = True


REGION, ZONE = Step(1000, "region"), Step(900, "zone")
CORE, SPINE, RACK = Step(102, "core"), Step(101, "spine"), Step(100, "rack")
NVLINK_DOMAIN, NVLINK = Step(20, "nvlink-domain", False), Step(10, "nvlink", False)
HOST = Step(1, "host", False)  # the machine under a virtual one: a level only where machines hold several nodes


@dataclass(frozen=True, slots=True)
class Source:
    """A label key and its step. Of several on one step, the one that most nodes carry counts, then the first in KNOWN.

    `last`: only for nodes that carry no other of its step. `part`: of a value that is two in one.
    """

    key: str
    step: Step
    last: bool = False
    part: str = ""

    @property
    def word(self) -> str:
        """The key's last part, by which people may call the level too."""
        return self.key.rpartition("/")[2]

    def read(self, labels: Mapping[str, str]) -> str:
        """The value on a node; empty where there is none."""
        value = labels.get(self.key, "")
        return clique_part(value, self.part) if self.part else value


def clique_part(value: str, part: str) -> str:
    """Of `<ClusterUUID>.<CliqueID>`; a cluster of zeros is what a driver says that is not set up."""
    cluster, _, clique = value.rpartition(".")
    if not cluster or not clique or cluster == _NO_CLUSTER:
        return ""
    return cluster if part == "cluster" else value


KNOWN: tuple[Source, ...] = (
    Source("topology.kubernetes.io/region", REGION),
    Source("topology.kubernetes.io/zone", ZONE),
    Source("network.topology.nvidia.com/core", CORE),
    Source("network.topology.nvidia.com/datacenter", CORE),
    Source("topology.k8s.aws/network-node-layer-1", CORE),
    Source("oci.oraclecloud.com/rdma.hpc_island_id", CORE),
    # Instances that were bought together: near, but spread over racks.
    Source("topology.k8s.aws/capacity-block-id", CORE, last=True),
    Source("network.topology.nvidia.com/spine", SPINE),
    Source("topology.k8s.aws/network-node-layer-2", SPINE),
    Source("cloud.google.com/gce-topology-block", SPINE),
    Source("oci.oraclecloud.com/rdma.network_block_id", SPINE),
    Source("oci.oraclecloud.com/host.network_block_id", SPINE),
    Source("network.topology.nvidia.com/leaf", RACK),
    Source("network.topology.nvidia.com/block", RACK),
    Source("topology.k8s.aws/network-node-layer-3", RACK),
    Source("cloud.google.com/gce-topology-subblock", RACK),
    Source("oci.oraclecloud.com/rdma.local_block_id", RACK),
    Source("oci.oraclecloud.com/host.rack_id", RACK),
    Source("accelerator.topograph.run/domain", NVLINK_DOMAIN),
    Source("topology.k8s.aws/ultraserver-id", NVLINK_DOMAIN),
    Source(CLIQUE, NVLINK_DOMAIN, part="cluster"),
    Source("accelerator.topograph.run/sub-domain", NVLINK),
    Source(CLIQUE, NVLINK, part="clique"),
    Source("network.topology.nvidia.com/accelerator", NVLINK),
    Source("cloud.google.com/gce-topology-host", HOST),
)
_BY_KEY: dict[str, tuple[Source, ...]] = {
    key: tuple(source for source in KNOWN if source.key == key) for key in {source.key for source in KNOWN}
}


def sources_of(key: str) -> tuple[Source, ...]:
    """What a label key says of a node's place; nothing for most keys."""
    found = _BY_KEY.get(key)
    if found is not None:
        return found
    tier = _TIER.fullmatch(key)
    return (Source(key, _tier_step(int(tier[1]))),) if tier else ()


def _tier_step(number: int) -> Step:
    """Tier 0 is the switch next to the node."""
    named = {0: RACK, 1: SPINE, 2: CORE}
    return named.get(number) or Step(RACK.width + number, f"tier-{number}")
