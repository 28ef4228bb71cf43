"""The network as a tree: what the placement works on, whatever labels it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Level:
    """One level of domains. `name`: for people (zone, spine, rack, nvlink). `keys`: the label keys it came from."""

    name: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node is. `domains`: one for each level of its topology, widest first, each unique within its level.

    Domains nest: two nodes of one domain share every wider one. A node of which a level is not known has a domain of
    its own there (and in every closer level that is not known either), so that it is near to nobody but those with
    which it shares a closer domain that is known; `unknown`: the names of these levels.
    `kind`: product of its GPUs, or empty; a job's nodes are all of one kind.
    """

    name: str
    domains: tuple[str, ...]
    kind: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Topology:
    """`levels`: widest first; none: one flat network. `sites`: every node, whether free or not."""

    levels: tuple[Level, ...]
    sites: tuple[Site, ...]

    @cached_property
    def by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.sites}

    def of(self, nodes: Iterable[str]) -> tuple[Site, ...]:
        """The sites of these nodes, in this order; a node that is not there is left out."""
        return tuple(self.by_name[name] for name in nodes if name in self.by_name)

    @property
    def hop_names(self) -> tuple[str, ...]:
        """What a hop crosses, by the number of levels that its two ends share: the widest first.

        With levels zone and rack: "zone" (to another zone), "rack" (to another rack of the zone), "node" (to another
        node of the rack).
        """
        return (*(level.name for level in self.levels), "node")


def shared(a: Site, b: Site) -> int:
    """Levels that two nodes share, 0 to all of them: the depth of their closest common domain."""
    depth = 0
    for mine, others in zip(a.domains, b.domains, strict=True):
        if mine != others:
            break
        depth += 1
    return depth
