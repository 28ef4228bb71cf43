"""Bytes and FLOPs of a ring by counting, against the least that is possible.

Least bytes: each key that a rank reads and does not own is sent to it once. Least FLOPs: those of the pairs that the
mask shows. `plain` is a ring that carries every block past every rank. Every rank's schedule is counted for up to 16
ranks; beyond, 8 ranks spread over the ring are: what they receive is compared with what they read, and their work with
each other's. A dash: nothing is to be sent, or not every rank was counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.ring.cases import GROUPS, HEADS, SIZE, masks
from ring_worker.attention import Layout, Mask
from ring_worker.attention.needs import Asked, key_needs, travelling
from ring_worker.attention.ranges import tokens
from ring_worker.attention.route import Route
from ring_worker.attention.schedule import Schedule, schedule

RANKS = (2, 8, 64, 256, 1024)
TOKENS_A_RANK = 1024
ALL_COUNTED, SAMPLE = 16, 8
TOKEN_BYTES = 2 * GROUPS * SIZE * 2  # key and value in bf16
PAIR_FLOPS = 4 * HEADS * SIZE  # forward
CHOSEN = {"causal": ("zigzag", "striped", "contiguous"), "full": ("zigzag",)}


def measure() -> list[dict[str, Any]]:
    cases = [
        (ranks, kind, name)
        for ranks in RANKS
        for name in masks(ranks * TOKENS_A_RANK)
        for kind in CHOSEN.get(name, ("zigzag", "contiguous"))
    ]
    return [_counted(*case) for case in track(cases, "counting", transient=True)]


def _counted(ranks: int, kind: str, name: str) -> dict[str, Any]:
    length = ranks * TOKENS_A_RANK
    layout, mask = Layout(kind, length, ranks, stripe=128), masks(length)[name]
    asked = Asked(layout, mask)
    counted = list(range(ranks)) if ranks <= ALL_COUNTED else [i * ranks // SAMPLE + i for i in range(SAMPLE)]
    plans = [schedule(asked, rank, Route(ranks, ranks)) for rank in counted]
    needs, pairs = key_needs(asked), [plan.pairs for plan in plans]
    visible, read = _pairs(mask, length), sum(needs[rank].tokens(without=rank) for rank in counted)
    return {
        "ranks": ranks,
        "layout": kind,
        "mask": name,
        "ranks_counted": len(counted),
        "received_over_read": sum(map(_received, plans)) / read if read else None,
        "bytes_a_rank": travelling(needs) * TOKEN_BYTES / ranks,
        "of_plain": travelling(needs) / (length * (ranks - 1)),
        "computed_over_visible": sum(pairs) / visible if len(counted) == ranks else None,
        "flops_a_rank": visible * PAIR_FLOPS / ranks,
        "most_over_mean_work": max(pairs) * len(counted) / sum(pairs),
    }


def _received(plan: Schedule) -> int:
    exchanges = [exchange for step in plan.steps for exchange in (step.next, step.round)]
    return sum(tokens(parcel.ranges) for exchange in exchanges for parcel in exchange.received)


def _pairs(mask: Mask, length: int) -> int:
    return sum(int(np.maximum(hi - lo, 0).sum()) for lo, hi in mask.terms(np.arange(length), length))


def show(results: list[dict[str, Any]]) -> Table:
    table = Table(title=f"counted: {TOKENS_A_RANK} tokens a rank, {HEADS} / {GROUPS} heads of {SIZE}, bf16, forward")
    for column in ("ranks", "layout", "mask", "MB sent a rank", "sent / least", "sent / plain ring"):
        table.add_column(column, justify="left" if column in ("layout", "mask") else "right")
    for column in ("GFLOP a rank", "computed / visible", "most / mean work"):
        table.add_column(column, justify="right")
    for before, r in zip([None, *results], results, strict=False):
        if before and before["ranks"] != r["ranks"]:
            table.add_section()
        sent_ratio, exact = (
            "-" if r[name] is None else f"{r[name]:.3f}" for name in ("received_over_read", "computed_over_visible")
        )
        sent = f"{r['bytes_a_rank'] / 1e6:.3f}", sent_ratio, f"{r['of_plain']:.4f}"
        work = f"{r['flops_a_rank'] / 1e9:.2f}", exact, f"{r['most_over_mean_work']:.2f}"
        table.add_row(str(r["ranks"]), r["layout"], r["mask"], *sent, *work)
    return table
