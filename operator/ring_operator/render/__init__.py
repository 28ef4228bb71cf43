"""Job and plan -> what is created for it: RunConfig in its ConfigMap, a headless Service, a NetworkPolicy, the pods.

Pure: plain Kubernetes manifests come out, the same for a cluster and for this machine, where `local` runs the pods'
commands as processes. `Place` says where folders are; all names come from `names`. The rank table is not made here:
it is published once it is known where the pods are, so the pods mount its ConfigMap as optional.
"""

from ring_operator.render.config import Place, cluster_place, run_config
from ring_operator.render.manifests import Rendered, children, render
from ring_operator.render.metadata import Manifest
from ring_operator.render.pods import Slot, pod
from ring_operator.render.scheduling import pinned
from ring_operator.render.shared import ranks_map, stacks_map

__all__ = [
    "Manifest",
    "Place",
    "Rendered",
    "Slot",
    "children",
    "cluster_place",
    "pinned",
    "pod",
    "ranks_map",
    "render",
    "run_config",
    "stacks_map",
]
