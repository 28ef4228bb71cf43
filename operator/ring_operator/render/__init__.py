"""Job and plan -> what is created for it: the RunConfig, its ConfigMap, a headless Service, and the pods.

Pure: plain Kubernetes manifests come out, the same for a cluster and for this machine, where `local` runs the pods'
commands as processes. `Place` says where folders are; all names come from `names`. The rank table is not made here:
it is published once it is known where the pods are, so the pods mount its ConfigMap as optional.
"""

from ring_operator.render.config import Place, cluster_place, run_config
from ring_operator.render.manifests import Rendered, render

__all__ = ["Place", "Rendered", "cluster_place", "render", "run_config"]
