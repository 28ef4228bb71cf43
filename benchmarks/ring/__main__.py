"""The command line: `python -m benchmarks.ring --help`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import benchmarks.ring
from benchmarks.machine import about
from benchmarks.ring import count, errors, gloo, loop

PARTS = ("count", "errors", "loop", "gloo")


def main() -> None:
    options = _options()
    results: dict[str, Any] = {}
    for part in options.parts:
        results[part], table = _measured(part, options)
        Console(width=150).print(table)
    if options.json:
        head = about("ring", torch.device("cpu"))
        options.json.write_text(json.dumps(head | {"ranks": options.ranks, "results": results}, indent=1) + "\n")


def _measured(part: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], Table]:
    if part == "count":
        found = count.measure()
        return found, count.show(found)
    if part == "errors":
        found = errors.measure()
        return found, errors.show(found)
    if part == "loop":
        found = loop.measure(
            options.lengths + options.long_lengths, options.loop_ranks, options.repeats, options.threads
        )
        return found, loop.show(found, options.threads, options.repeats)
    found = gloo.measure(options.lengths, options.long_lengths, options.ranks, options.repeats)
    return found, gloo.show(found, options.ranks, options.repeats)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ring",
        description=benchmarks.ring.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--count", action="store_true", help="only count; the same as the part count")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192], help="tokens, for every layout and mask")
    parser.add_argument("--long-lengths", type=int, nargs="*", default=[32768], help="tokens, causal zigzag alone")
    parser.add_argument("--ranks", type=int, default=4, help="gloo processes")
    parser.add_argument("--loop-ranks", type=int, default=8, help="virtual ranks of the loop")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the loop and its rival")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    options.parts = ["count"] if options.count else options.parts or list(PARTS)
    return options


if __name__ == "__main__":
    main()
