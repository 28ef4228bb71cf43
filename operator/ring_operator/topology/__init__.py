"""Nodes and pods as Kubernetes gives them -> where each node hangs in the network, and which nodes are free for a job.

Pure. Labels of every well-known family are read; a label that is missing means that the place is not known, never that
it is near. `node_of` and `usage_of` read the objects, `topology_of` gives the tree, `free_sites` what is free in it.
"""

from ring_operator.topology.dump import Dump, read_dump
from ring_operator.topology.free import Ask, Free, Reason, Toleration, ask_of, free_in, free_sites
from ring_operator.topology.levels import find_level
from ring_operator.topology.nodes import Node, Taint, node_of
from ring_operator.topology.pods import Usage, usage_of
from ring_operator.topology.sites import topology_of
from ring_operator.topology.tree import Level, Site, Topology

__all__ = [
    "Ask",
    "Dump",
    "Free",
    "Level",
    "Node",
    "Reason",
    "Site",
    "Taint",
    "Toleration",
    "Topology",
    "Usage",
    "ask_of",
    "find_level",
    "free_in",
    "free_sites",
    "node_of",
    "read_dump",
    "topology_of",
    "usage_of",
]
