"""N virtual ranks in one process, in turn, against one kernel over the whole sequence: the ring's whole arithmetic.

Both sides use the same threads and are timed in turns in the same run. What the ring adds is what no link hides: more
and smaller calls of the kernel, the carried state, packing, and the sums of gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from rich.progress import track
from rich.table import Table

from benchmarks.ring.cases import median, one_kernel, tensors, timed
from ring_worker.attention import CAUSAL, Layout, loop_attention, virtual_rings

PHASES = ("forward", "backward")


def measure(lengths: list[int], ranks: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    return [_of(length, ranks, repeats) for length in lengths]


def _of(length: int, ranks: int, repeats: int) -> dict[str, Any]:
    given, rings = tensors(length), virtual_rings(Layout("zigzag", length, ranks))
    _, alone = one_kernel(CAUSAL, length)
    singles, loops = [], []
    for _ in track(range(repeats + 1), f"loop of {ranks}, {length} tokens", transient=True):
        singles.append(timed(alone, *given))
        loops.append(timed(lambda q, k, v: loop_attention(q, k, v, rings), *given))
    single, loop = median(singles[1:]), median(loops[1:])
    phases = {
        phase: {"single_seconds": single[i], "loop_seconds": loop[i], "ratio": loop[i] / single[i]}
        for i, phase in enumerate(PHASES)
    }
    return {"length": length, "ranks": ranks, "ratio": sum(loop) / sum(single), **phases}


def show(results: list[dict[str, Any]], threads: int, repeats: int) -> Table:
    title = f"virtual ranks in a loop / one kernel, causal zigzag, fp32, {threads} threads, median of {repeats}"
    table = Table(title=title)
    for column in ("tokens", "ranks", "forward", "backward", "both"):
        table.add_column(column, justify="right")
    for r in results:
        ratios = (r["forward"]["ratio"], r["backward"]["ratio"], r["ratio"])
        table.add_row(str(r["length"]), str(r["ranks"]), *(f"{x:.3f}" for x in ratios))
    return table
