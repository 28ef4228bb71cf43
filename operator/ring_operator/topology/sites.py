"""Nodes -> `Topology`: where each node hangs.

A label that is missing is never read as near. What can be known all the same is: nodes of one rack share its spine, so
a node whose spine is not labelled gets the spine of the others in its rack, if these agree. If nobody tells, the rack
hangs under a spine of its own. A node that has no closer label either is alone on that level and on every closer one.
Labels that contradict nesting, one rack under two spines, make two domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ring_operator.topology.levels import Reading, auto_levels, own_levels
from ring_operator.topology.nodes import Node
from ring_operator.topology.tree import Level, Site, Topology

UNKNOWN = "?"  # begins the name of a domain that no label names; no label value can
_Values = list[str]  # one a level, widest first; empty: not known


def topology_of(nodes: Sequence[Node], levels: Sequence[str] = ()) -> Topology:
    """`levels`: label keys, widest first, instead of those that are found."""
    readings = own_levels(levels) if levels else auto_levels(nodes)
    rows = [[reading.value(node.labels) for reading in readings] for node in nodes]
    lacking = _lacking(nodes, rows, readings)
    _infer(rows)
    shown = _named(nodes, rows, [reading.name for reading in readings])
    sites = tuple(
        Site(node.name, domains, node.kind, unknown)
        for node, domains, unknown in zip(nodes, shown, lacking(rows), strict=True)
    )
    return Topology(tuple(Level(reading.name, reading.keys) for reading in readings), sites)


@dataclass(frozen=True, slots=True)
class _Lacking:
    """Which levels a node's place is not known on. `usual`: (level, kind of GPU) that a node is expected to have."""

    nodes: Sequence[Node]
    readings: Sequence[Reading]
    usual: frozenset[tuple[int, str]]

    def __call__(self, rows: Sequence[_Values]) -> list[tuple[str, ...]]:
        return [self._of(node.kind, row) if "" in row else () for node, row in zip(self.nodes, rows, strict=True)]

    def _of(self, kind: str, row: _Values) -> tuple[str, ...]:
        missing = (i for i, value in enumerate(row) if not value)
        return tuple(self.readings[i].name for i in missing if self.readings[i].expected or (i, kind) in self.usual)


def _lacking(nodes: Sequence[Node], rows: Sequence[_Values], readings: Sequence[Reading]) -> _Lacking:
    """Nodes of a kind that has NVLink between nodes elsewhere are expected to have it."""
    optional = [i for i, reading in enumerate(readings) if not reading.expected]
    usual = {(i, node.kind) for i in optional for node, row in zip(nodes, rows, strict=True) if node.kind and row[i]}
    return _Lacking(nodes, readings, frozenset(usual))


def _infer(rows: Sequence[_Values]) -> None:
    """Fill in, from the closest level outwards, what others of the same closer domain tell."""
    gaps = [row for row in rows if "" in row]
    if not gaps:
        return
    depth = len(gaps[0])
    for wide in range(depth - 2, -1, -1):
        if any(not row[wide] for row in gaps):
            told = [_told(rows, wide, close) for close in range(wide + 1, depth)]
            for row in gaps:
                row[wide] = row[wide] or _agreed(row, wide, told)


def _told(rows: Sequence[_Values], wide: int, close: int) -> dict[str, str]:
    """Value of the closer level -> value of the wider one; empty where several contradict."""
    told: dict[str, str] = {}
    for row in rows:
        if row[wide] and row[close] and told.setdefault(row[close], row[wide]) != row[wide]:
            told[row[close]] = ""
    return told


def _agreed(row: _Values, wide: int, told: Sequence[dict[str, str]]) -> str:
    """The nearest closer level that tells anything decides."""
    for value, known in zip(row[wide + 1 :], told, strict=True):
        if value and value in known:
            return known[value]
    return ""


def _named(nodes: Sequence[Node], rows: Sequence[_Values], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Domains of every node, each unique within its level: by the label's value, behind its wider domain if need be."""
    done: list[list[str]] = [[] for _ in rows]
    for level in range(len(names)):
        values = [row[level] or _unlabelled(row, level, names, node) for node, row in zip(nodes, rows, strict=True)]
        parents = [row[-1] if row else "" for row in done]
        twice = _under_several(values, parents)
        for row, value, parent in zip(done, values, parents, strict=True):
            row.append(f"{parent}/{value}" if value in twice else value)
    return [tuple(row) for row in done]


def _unlabelled(row: _Values, level: int, names: Sequence[str], node: Node) -> str:
    """A domain that no label names: `?rack:r7`, whatever rack r7 hangs under, else `??NODE` for the node alone."""
    for closer in range(level + 1, len(row)):
        if row[closer]:
            return f"{UNKNOWN}{names[closer].replace('/', '.')}:{row[closer]}"
    return f"{UNKNOWN}{UNKNOWN}{node.name}"


def _under_several(values: Sequence[str], parents: Sequence[str]) -> set[str]:
    first: dict[str, str] = {}
    return {value for value, parent in zip(values, parents, strict=True) if first.setdefault(value, parent) != parent}
