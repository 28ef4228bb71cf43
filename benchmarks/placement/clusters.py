"""Clusters and jobs to compare on. Host names say nothing of racks, as in most clusters."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ring_operator.placement import Problem
from ring_operator.placement.weights import weights_for
from ring_operator.topology import Site


def network(levels: tuple[str, ...], fanouts: tuple[int, ...], free: float, seed: int) -> tuple[Site, ...]:
    """`fanouts`: of each level and, last, nodes of a closest domain. `free`: share of nodes that are free."""
    rng = random.Random(seed)
    paths: list[tuple[str, ...]] = [()]
    for level, count in zip(levels, fanouts, strict=False):
        paths = [(*p, f"{p[-1] if p else ''}{level[0]}{i}") for p in paths for i in range(count)]
    places = [path for path in paths for _ in range(fanouts[-1])]
    names = [f"node-{i:05d}" for i in range(len(places))]
    rng.shuffle(names)
    return tuple(Site(n, p, "gpu") for n, p in zip(names, places, strict=True) if rng.random() < free)


def job(sites: tuple[Site, ...], levels: tuple[str, ...], shape: tuple[int, int, int]) -> Problem:
    """`shape`: pipeline, data, nodes of a ring."""
    return Problem(levels, sites, *shape, weights_for(levels, {}))


def named() -> Iterator[tuple[str, Problem]]:
    """What is compared with the others."""
    tree, gb200, aws = ("spine", "rack"), ("spine", "rack", "nvlink"), ("core", "spine", "rack")
    yield "fat tree, 512 nodes, all free: 8 rings of 16", job(network(tree, (8, 8, 8), 1, 1), tree, (1, 8, 16))
    yield "fat tree, 512 nodes, 70 % free: 8 rings of 16", job(network(tree, (8, 8, 8), 0.7, 2), tree, (1, 8, 16))
    yield "fat tree, 1,024 nodes, half free: 1 ring of 64", job(network(tree, (8, 16, 8), 0.5, 3), tree, (1, 1, 64))
    yield "GB200, 32 racks of 18: 16 rings of 16", job(network(gb200, (4, 8, 1, 18), 0.95, 4), gb200, (1, 16, 16))
    yield "GB200, 32 racks of 18, 60 % free: 4 x 4 of 8", job(network(gb200, (4, 8, 1, 18), 0.6, 5), gb200, (4, 4, 8))
    yield "AWS, 3 layers, 1,536 nodes, 60 % free: 16 of 32", job(network(aws, (4, 8, 6, 8), 0.6, 6), aws, (1, 16, 32))


def fragmented(count: int) -> Iterator[Problem]:
    """Of a thousand nodes each; jobs take 30 to 90 % of what is free."""
    levels = ("spine", "rack")
    for seed in range(count):
        rng = random.Random(seed)
        sites = network(levels, (4, 16, 16), rng.uniform(0.3, 0.9), seed)
        size = rng.choice([4, 8, 16, 32])
        yield job(sites, levels, (1, max(1, int(len(sites) * rng.uniform(0.3, 0.9)) // size), size))
