"""Compare placements, print tables, write a result file.

python -m benchmarks.placement [--clusters N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.placement.clusters import fragmented, job, named, network
from benchmarks.placement.others import OTHERS, Rings
from ring_operator.placement import Placement, Problem, place
from ring_operator.placement.cost import cyclic_hops, ring_cost


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement", description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", type=int, default=100, help="random fragmented ones (default: 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    found = {
        **machine.about("placement", torch.device("cpu")),
        "against": [compared(name, problem) for name, problem in named()],
        "fragmented": gaps(options.clusters),
        "sizes": [sized(nodes, shape) for nodes in (1000, 10000) for shape in ((1, 32, 16), (8, 8, 8), (1, 8, 64))],
    }
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def solved(problem: Problem) -> tuple[Placement, float]:
    began = time.perf_counter()
    found = place(problem)
    seconds = time.perf_counter() - began
    assert isinstance(found, Placement), found
    return found, seconds


def compared(name: str, problem: Problem) -> dict[str, Any]:
    ours, seconds = solved(problem)
    rows = {"ours": {"cost": ours.cost, "hops": dict(ours.hops), "seconds": round(seconds, 4)}}
    for other, order in OTHERS.items():
        began = time.perf_counter()
        rings = order(problem)
        rows[other] = {**counted(problem, rings), "seconds": round(time.perf_counter() - began, 4)}
    return {"cluster": name, "free": len(problem.free), "lowerBound": ours.lower_bound, "orders": rows}


def counted(problem: Problem, rings: Rings) -> dict[str, Any]:
    names = (*problem.levels, "node")
    hops = dict.fromkeys(names, 0)
    for depth in (depth for ring in rings for depth in cyclic_hops(ring)):
        hops[names[depth]] += 1
    return {"cost": sum(ring_cost(ring, problem.weights) for ring in rings), "hops": hops}


def gaps(count: int) -> dict[str, Any]:
    results = [solved(problem) for problem in fragmented(count)]
    found = [placement.gap for placement, _ in results]
    return {
        "clusters": count,
        "gapZeroShare": sum(gap < 1e-9 for gap in found) / count,
        "largestGap": max(found),
        "secondsMedian": statistics.median(s for _, s in results),
        "secondsMost": max(s for _, s in results),
    }


def sized(nodes: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    levels = ("spine", "rack")
    problem = job(network(levels, (-(-nodes // 256), 16, 16), 0.6 if nodes > 1000 else 0.9, 0), levels, shape)
    found, seconds = solved(problem)
    tracemalloc.start()
    place(problem)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    what = " x ".join(map(str, shape))
    figures = {"seconds": round(seconds, 3), "peakMiB": round(peak / 2**20, 1), "gap": round(found.gap, 4)}
    return {"nodes": nodes, "free": len(problem.free), "shape": what, **figures}


def show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("cluster", "order", "cost", "of bound", "hops by level", "seconds")
    for row in found["against"]:
        for order, figures in row["orders"].items():
            hops = ", ".join(f"{count} {level}" for level, count in figures["hops"].items())
            of_bound = f"{figures['cost'] / row['lowerBound']:.3f}"
            table.add_row(row["cluster"], order, f"{figures['cost']:g}", of_bound, hops, str(figures["seconds"]))
    console.print(table)
    console.print(found["fragmented"])
    for row in found["sizes"]:
        console.print(row)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
