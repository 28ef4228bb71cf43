"""`Topology` -> the tree of its domains, for those who walk or draw it.

In natural order (rack-2 before rack-10). What no label names comes last: nodes that are alone on a level are put
together, in one `Domain` of the wider one that says so, instead of a box round each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ring_operator.topology.sites import UNKNOWN
from ring_operator.topology.tree import Site, Topology

_ALONE = UNKNOWN * 2
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Domain:
    """`level`: its number; -1 for the whole network. `sites`: of the whole domain, in natural order.

    `alone`: no domain at all, but nodes that share no domain of this level with anybody; of these, `unknown` ones are
    there because their place is not known, others because there is nothing to share, such as NVLink.
    """

    level: int
    name: str
    sites: tuple[Site, ...]
    parts: tuple[Domain, ...] = ()
    alone: bool = False
    unknown: bool = False

    @property
    def label(self) -> str:
        """The name without what it hangs under."""
        last = self.name.rpartition("/")[2]
        return f"not labelled (over {last[1:].replace(':', ' ', 1)})" if last.startswith(UNKNOWN) else last

    def walk(self) -> Iterator[Domain]:
        yield self
        for part in self.parts:
            yield from part.walk()


def domains_of(topology: Topology) -> Domain:
    """The whole network."""
    sites = sorted(topology.sites, key=lambda site: natural(site.name))
    names = [level.name for level in topology.levels]
    return Domain(-1, "", tuple(sites), tuple(_parts(sites, 0, names)))


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Sorts numbers in a text as numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(text) if part)


def _parts(sites: Sequence[Site], level: int, names: Sequence[str]) -> Iterator[Domain]:
    if level == len(names):
        return
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(_group(site, level, names[level]), []).append(site)
    for name in sorted(groups, key=lambda name: (UNKNOWN in name, natural(name))):
        inside = tuple(groups[name])
        if name.startswith(_ALONE):
            yield Domain(level, "", inside, alone=True, unknown=name != _ALONE)
        else:
            yield Domain(level, name, inside, tuple(_parts(inside, level + 1, names)))


def _group(site: Site, level: int, name: str) -> str:
    """Its domain; one group for all that are alone, and one for all whose place is not known."""
    domain = site.domains[level]
    if _ALONE not in domain:
        return domain
    return f"{_ALONE}unknown" if name in site.unknown else _ALONE
