"""Measure the operator, print a table, write a result file.

    python -m benchmarks.operator [large|fleet|all] [--jobs N] [--pods N] [--json FILE]

Everything shares this machine: the control plane, kwok, the agents that are played, and the operator.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.operator.parts import fleet, large
from benchmarks.operator.world import world

GOALS = {
    "share_of_bare": "0.7",
    "pods_per_second": "290 (JobSet's published rate)",
    "running_seconds": "120 for 1,000 jobs of 8 pods",
    "start_seconds": "5 for 500 jobs and 4,096 pods",
    "start_memory_mib": "200",
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", default="all", choices=["large", "fleet", "all"])
    parser.add_argument("--jobs", type=int, default=500, help="of the fleet (default: 500)")
    parser.add_argument("--pods", type=int, default=8, help="of each job of the fleet (default: 8)")
    parser.add_argument("--large", type=int, default=512, help="pods of the one large job (default: 512)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    head, found = machine.about("operator", torch.device("cpu")), {}
    if options.part in ("large", "all"):
        with world(max(16, options.large)) as here:
            found["large"] = large(here, options.large)
    if options.part in ("fleet", "all"):
        with world(max(16, options.jobs * options.pods // 100)) as here:
            found["fleet"] = fleet(here, options.jobs, options.pods)
    show(found)
    if options.json:
        options.json.write_text(json.dumps({**head, **found}, indent=2) + "\n", encoding="utf-8")
    return 0


def show(found: dict[str, dict[str, Any]]) -> None:
    table = Table("part", "figure", "seen", "goal")
    for part, figures in found.items():
        for name, value in figures.items():
            table.add_row(part, name.replace("_", " "), str(value), GOALS.get(name, ""))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
