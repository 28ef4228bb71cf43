"""Nodes and pods of a cluster: from a file that kubectl wrote, or from the cluster itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from ring_operator.cli.common import read_source, source_name
from ring_operator.cli.remote.options import if_allowed, note_on_stderr
from ring_operator.errors import refuse
from ring_operator.raw import Raw
from ring_operator.remote.kubeconfig import Target
from ring_operator.remote.nodes import Cluster
from ring_operator.topology import Node, Usage, node_of, read_dump, usage_of

NodesOption = Annotated[
    str | None,
    typer.Option(
        "--nodes",
        metavar="FILE",
        help="What kubectl get nodes,pods -A -o json wrote, instead of a cluster; - reads it.",
    ),
]


@dataclass(frozen=True, slots=True)
class Network:
    """`source`: where it is from, in a few words. `notes`: what is not known of it."""

    source: str
    nodes: tuple[Node, ...]
    usages: tuple[Usage, ...]
    notes: tuple[str, ...] = ()


def network(file: str | None, target: Target) -> Network:
    """Raises UserError: for both a file and a context, a file that is none, a cluster that does not answer."""
    if file is None:
        return _from_cluster(target)
    if target.context or target.kubeconfig:
        option = "--context" if target.context else "--kubeconfig"
        raise refuse("--nodes", f"is a file, but {option} is a cluster", "Give one of them.")
    dump = read_dump(read_source(file), source_name(file))
    notes = () if dump.has_pods else ("no pods are in the file, so every node is taken to be empty",)
    return _network(source_name(file), dump.nodes, dump.pods, notes)


def _from_cluster(target: Target) -> Network:
    cluster = Cluster(target)
    nodes = cluster.nodes()
    if not nodes:
        raise refuse(
            "", f"{cluster.server} has no nodes", "Name another cluster with --context, or a file with --nodes."
        )
    unseen = "you may not list the pods of all namespaces, so every node is taken to be empty"
    pods = if_allowed(cluster.pods, None, note_on_stderr)
    return _network(cluster.server, nodes, pods or [], (unseen,) if pods is None else ())


def _network(source: str, nodes: Iterable[Raw], pods: Iterable[Raw], notes: tuple[str, ...]) -> Network:
    usages = (usage_of(pod) for pod in pods)
    return Network(source, tuple(map(node_of, nodes)), tuple(usage for usage in usages if usage), notes)
