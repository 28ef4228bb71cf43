"""The network for programs: plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ring_operator.cli.drawing.states import State
from ring_operator.cli.drawing.tally import of_sites, tally
from ring_operator.topology import Site, Topology
from ring_operator.topology.domains import Domain, domains_of


def document(topology: Topology, states: Mapping[str, State], notes: Sequence[str]) -> dict[str, Any]:
    """`domains` nest; `nodes` names the domain of every node on every level."""
    root = domains_of(topology)
    whole = tally(states.values())
    return {
        "levels": [
            {"name": level.name, "keys": list(level.keys), "domains": _how_many(topology, number)}
            for number, level in enumerate(topology.levels)
        ],
        "total": whole.nodes,
        "free": whole.free,
        "gpus": whole.gpus,
        "gpusFree": whole.free_gpus,
        "kinds": dict(whole.kinds),
        "states": {str(word): number for word, number in sorted(whole.words.items())},
        "unknown": [site.name for site in root.sites if site.unknown],
        "notes": list(notes),
        "domains": [_domain(part, topology, states) for part in root.parts if not part.alone],
        "nodes": [_node(site, topology, states[site.name]) for site in root.sites],
    }


def _how_many(topology: Topology, level: int) -> int:
    return len({site.domains[level] for site in topology.sites})


def _domain(domain: Domain, topology: Topology, states: Mapping[str, State]) -> dict[str, Any]:
    found = of_sites(domain.sites, states)
    inside = [_domain(part, topology, states) for part in domain.parts if not part.alone]
    return {
        "level": topology.levels[domain.level].name,
        "name": domain.name,
        "nodes": found.nodes,
        "free": found.free,
        "gpus": found.gpus,
        "gpusFree": found.free_gpus,
        "kinds": dict(found.kinds),
        **({"domains": inside} if inside else {}),
    }


def _node(site: Site, topology: Topology, state: State) -> dict[str, Any]:
    names = [level.name for level in topology.levels]
    return {
        "name": site.name,
        "domains": dict(zip(names, site.domains, strict=True)),
        "unknown": list(site.unknown),
        "kind": site.kind,
        "state": str(state.word),
        **({"why": state.why} if state.why else {}),
        "gpus": state.gpus,
        "gpusFree": state.free,
    }
