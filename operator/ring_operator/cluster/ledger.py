"""What every node has left, kept up to date pod by pod, and the nodes that were promised a moment ago.

A pin is seen in the copy of the pods only after the API server has told of it. Until then the promise stands here, so
that two jobs that are placed in the same moment get different nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ring_operator.placement import Ground
from ring_operator.topology import Ask, Node, Topology, Usage, free_in, topology_of

PROMISE_SECONDS = 30.0

Key = tuple[str, str]


class Ledger:
    """`nodes`: the present ones, by (empty namespace, name)."""

    def __init__(self, nodes: Callable[[], Mapping[Key, Node]]) -> None:
        self._nodes = nodes
        self._taken: dict[str, dict[str, int]] = {}
        self._promises: dict[str, dict[str, float]] = {}  # job -> node -> until when (monotonic)
        self._topologies: dict[tuple[str, ...], Topology] = {}

    def pod(self, before: Usage | None, now: Usage | None) -> None:
        for usage, sign in ((before, -1), (now, 1)):
            if usage is not None:
                total = self._taken.setdefault(usage.node, {})
                for name, amount in usage.takes.items():
                    total[name] = total.get(name, 0) + sign * amount
        if now is not None and now.job:
            self._promises.get(now.job, {}).pop(now.node, None)

    def node_changed(self) -> None:
        self._topologies.clear()

    def promise(self, job: str, nodes: Iterable[str]) -> None:
        until = time.monotonic() + PROMISE_SECONDS
        self._promises.setdefault(job, {}).update(dict.fromkeys(nodes, until))

    def forget(self, job: str) -> None:
        self._promises.pop(job, None)

    def topology(self, levels: Sequence[str]) -> Topology:
        """Made anew only after a node has changed. `levels`: label keys of a job's own; none: those that are found."""
        key = tuple(levels)
        if key not in self._topologies:
            nodes = sorted(self._nodes().values(), key=lambda node: node.name)
            self._topologies[key] = topology_of(nodes, key)
        return self._topologies[key]

    def ground(self, job: str, levels: Sequence[str], ask: Ask, kept: frozenset[str]) -> Ground:
        """`kept`: nodes that the job holds, which are free to it."""
        topology = self.topology(levels)
        promised = self._promised_to_others(job)
        nodes = [n for n in self._nodes().values() if n.name not in kept and n.name not in promised]
        free = free_in(topology, nodes, self._taken, ask)
        why = [free.why_not(), f"{len(promised)} are promised to other jobs" if promised else ""]
        return Ground(topology, (*topology.of(sorted(kept)), *free.sites), "; ".join(filter(None, why)))

    def _promised_to_others(self, job: str) -> set[str]:
        now = time.monotonic()
        return {
            n for other, nodes in self._promises.items() if other != job for n, until in nodes.items() if until > now
        }
