"""What is asked of a placement, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.topology import Site


@dataclass(frozen=True, slots=True)
class Within:
    """Every ring inside one domain of the level with this number (0 is the widest). `required`: or not at all."""

    level: int
    required: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """`pipeline` x `data` groups of `size` nodes each, every node of one group only.

    `levels`: names of the levels, widest first. `free`: nodes that may be taken. `kept`: names, all among `free`, of
    nodes that must be (the job's pods are there already); where they are as many as are wanted, only the order is
    looked for. `weights`: of a hop by the number of levels that its ends share, len(levels) + 1 of them, none larger
    than the one before: weights[0] is crossing the widest level, the last one a hop inside a closest domain.
    A group of one node has no hops.
    """

    levels: tuple[str, ...]
    free: tuple[Site, ...]
    pipeline: int
    data: int
    size: int
    weights: tuple[float, ...]
    kept: frozenset[str] = frozenset()
    within: Within | None = None

    @property
    def groups(self) -> int:
        return self.pipeline * self.data

    @property
    def wanted(self) -> int:
        """Nodes in all."""
        return self.groups * self.size


@dataclass(frozen=True, slots=True)
class Placement:
    """`rings`: node names in ring order; group p x data + d is of pipeline stage p and data rank d.

    `hops`: ring hops by what they cross (names of the levels, widest first, then "node"), wrap-around included. `cost`:
    of all ring hops. `lower_bound`: no placement on these nodes costs less. `crossing`: rings that leave a domain of
    the level, by level. `pipeline_cost`, `data_cost`: of neighbours over these axes, which only choose among
    placements of the same cost. `kind`: the GPUs' product. `unknown`: nodes taken whose place in the network is not
    known. `notes`: what a person should know, such as by how much `preferred` was missed.
    """

    rings: tuple[tuple[str, ...], ...]
    hops: tuple[tuple[str, int], ...]
    cost: float
    lower_bound: float
    weights: tuple[float, ...]
    crossing: tuple[tuple[str, int], ...] = ()
    pipeline_cost: float = 0.0
    data_cost: float = 0.0
    kind: str = ""
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """By how much the cost may exceed the least, as a share of it; 0: it is the least."""
        return (self.cost - self.lower_bound) / self.lower_bound if self.lower_bound else 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no such placement. `reason`: what is missing where, with the numbers; `instead`: the nearest way out."""

    reason: str
    instead: str
