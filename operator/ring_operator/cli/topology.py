"""`ringctl topology`: the network as placement sees it, which labels say so, and what is free in it."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer

from ring_operator.cli.common import screen
from ring_operator.cli.drawing import draw, lay_out, states_of
from ring_operator.cli.drawing.document import document
from ring_operator.cli.drawing.outline import outline
from ring_operator.cli.drawing.tally import headline
from ring_operator.cli.network import NodesOption, network
from ring_operator.cli.remote.options import ContextOption, KubeconfigOption
from ring_operator.remote.kubeconfig import Target
from ring_operator.topology import topology_of
from ring_operator.topology.levels import without_nodes


class TopologyFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    SVG = "svg"


def topology(
    nodes: NodesOption = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            metavar="KEY",
            help="Label keys, widest first, as in placement.levels. Default: well-known ones.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every domain and node, however many there are.")] = False,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: Annotated[TopologyFormat, typer.Option("-o", "--output", help="How to print it.")] = TopologyFormat.TEXT,
) -> None:
    """Show the network: levels and their labels, domains, nodes, what is free, and nodes at unknown places."""
    found = network(nodes, Target(kubeconfig, context))
    tree = topology_of(found.nodes, levels or ())
    states = states_of(found.nodes, found.usages)
    notes = (*without_nodes(found.nodes, levels or ()), *found.notes)
    if form is TopologyFormat.JSON:
        typer.echo(json.dumps(document(tree, states, notes), indent=2))
    elif form is TopologyFormat.SVG:
        typer.echo(draw(tree, lay_out(tree), states, headline(states)), nl=False)
    else:
        console = screen()
        for line in outline(tree, states, notes, full):
            console.print(line, soft_wrap=True)
