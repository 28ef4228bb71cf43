"""Nodes and pods as Kubernetes gives them -> where each node hangs in the network, and which nodes are free for a job.

Pure. Labels of every well-known family are read; a label that is missing means that the place is not known, never that
it is near.
"""

from ring_operator.topology.tree import Level, Site, Topology

__all__ = ["Level", "Site", "Topology"]
