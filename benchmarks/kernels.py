"""Audit the Triton kernels without a GPU: compile every configuration of the table and read what it costs.

    python -m benchmarks.kernels [--only REGEX] [--json FILE]

For each kernel, GPU generation, head size and dtype, with and without a soft cap: registers, local and shared memory,
resident warps, matrix instructions, the instructions of the inner loop, and the bound on the fraction of peak that
follows (`kernel_bound` states the model). Beside bf16: the tutorial's kernel (`tutorial_flash`), its head size padded
to a power of two, in its own tiles, of which the leaner one counts
that does not spill. Two processes; what Triton has compiled once it
keeps, so a second time is quick. What is printed is no measurement: nothing here has run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.kernel_bound import bounds, others_per_product, resident_warps
from benchmarks.kernel_build import TARGETS, Build, compiled
from benchmarks.machine_code import inner_loop, matrix_counts
from ring_worker.attention.kernels.tile_table import DTYPES, KERNELS, ROWS, Shape, Tile, tile_for

PROCESSES = 2
TUTORIAL_TILES = {
    "forward": (Tile(128, 64, 4, 3), Tile(128, 64, 8, 3)),
    "dq": (Tile(128, 32, 4, 3), Tile(128, 32, 8, 3)),
    "dkdv": (Tile(32, 128, 4, 3), Tile(32, 128, 8, 3)),
}


@dataclass(frozen=True)
class Audit:
    """Of one build. `mix` of the inner loop, a warp and trip; `others` per 1000 useful FLOP; bounds of peak.

    Without matrix instructions (products by fused multiply-adds) the loop is not looked for: no mix, and 0.
    """

    name: str
    tile: str
    registers: int
    local_bytes: int
    spills: int
    shared_bytes: int
    resident_warps: int
    matrix: dict[str, int]
    mix: dict[str, int]
    others: float
    overlapped: float
    serial: float


def shipped() -> list[Build]:
    """Every configuration that the launcher can choose, but for other sizes in the same rows."""
    return [
        Build(kernel, target, shape, dtype, tile, capped, part)
        for capped in (False, True)
        for dtype in DTYPES
        for shape in ROWS
        for target in TARGETS
        for kernel in KERNELS
        for tile in [tile_for(kernel, shape, dtype, target, capped)]
        for part in tile.parts(kernel)
    ]


def tutorials() -> list[Build]:
    """What bf16 builds are compared with. The tile's place in TUTORIAL_TILES is in its warps."""
    sizes = sorted({_power_of_two(shape) for shape in ROWS}, key=lambda shape: (shape.head, shape.values))
    return [
        Build(f"tutorial-{kernel}", target, shape, "bf16", tile)
        for shape in sizes
        for target in TARGETS
        for kernel in KERNELS
        for tile in TUTORIAL_TILES[kernel]
    ]


def _power_of_two(shape: Shape) -> Shape:
    return Shape(*(1 << (size - 1).bit_length() for size in (shape.head, shape.values)))


def name_of(build: Build) -> str:
    return f"{build}-{build.tile.warps}" if build.kernel.startswith("tutorial-") else str(build)


def audit(build: Build) -> Audit:
    """Compile and read."""
    made, tile = compiled(build), build.tile
    shape = f"{tile.block_q}x{tile.block_k} w{tile.warps} s{tile.stages}"
    costs = (made.registers, made.local, made.spills, made.shared, resident_warps(build, made))
    matrix = matrix_counts(made.text)
    if not matrix:
        return Audit(name_of(build), shape, *costs, matrix, {}, 0.0, 0.0, 0.0)
    mix = inner_loop(made.text)
    figures = (others_per_product(build, mix), *bounds(build, mix))
    return Audit(name_of(build), shape, *costs, matrix, dict(mix.kinds), *figures)


def audits(builds: list[Build]) -> Iterator[Audit]:
    """In two processes, in the order of the builds."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(audit, builds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="audit builds whose name has this, such as forward-sm_90-128-bf16")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET"):
        sys.exit("TRITON_INTERPRET is set: the audit compiles. Unset it.")
    builds = [b for b in (*shipped(), *tutorials()) if re.search(options.only, name_of(b))]
    console = Console(stderr=True)
    found = list(track(audits(builds), "compiling", len(builds), console=console, disable=not sys.stderr.isatty()))
    Console(width=None if sys.stdout.isatty() else 150).print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(_report(found), indent=1) + "\n")


def yardstick(audit: Audit, found: Iterable[Audit]) -> Audit | None:
    """The leaner of the tutorial's builds for the same kernel, target and size, if they are among those found."""
    name, _, part = audit.name.partition("+")
    kernel, target, size, dtype, *cap = name.split("-")
    if part == "masked" or dtype != "bf16" or cap or kernel == "tutorial":
        return None
    head, _, values = size.partition(":")
    padded = _power_of_two(Shape(int(head), int(values or head)))
    stem = f"tutorial-{kernel}-{target}-{padded}-bf16-"
    theirs = [other for other in found if other.name.startswith(stem)]
    theirs = [other for other in theirs if not other.local_bytes] or theirs
    return min(theirs, key=lambda other: other.others, default=None)


def _table(found: list[Audit]) -> Table:
    table = Table(title="kernels, compiled ahead of time (a bound, not a measurement)")
    table.add_column("build", no_wrap=True)
    table.add_column("tile", no_wrap=True)
    for column in ("regs", "local", "shared", "warps", "matrix/mufu/fp/int/mem/bar", "others", "tutorial's", "bound %"):
        table.add_column(column, justify="right", no_wrap=True)
    for it in found:
        beside = yardstick(it, found)
        mix = "/".join(str(count) for count in it.mix.values())
        figures = (it.registers, it.local_bytes, it.shared_bytes, it.resident_warps, mix, f"{it.others:.2f}")
        theirs = f"{beside.others:.2f}" if beside else ""
        bound = f"{100 * it.serial:.0f}-{100 * it.overlapped:.0f}"
        table.add_row(it.name, it.tile, *map(str, figures), theirs, bound)
    return table


def _report(found: list[Audit]) -> dict[str, Any]:
    import triton

    about = {"benchmark": "kernels", "triton": triton.__version__, "measured": "nothing: compiled ahead of time"}
    return {**about, "results": [asdict(it) for it in found]}


if __name__ == "__main__":
    main()
