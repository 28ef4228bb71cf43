"""Turn runs into what a tiled kernel walks over: pure, in numpy, no torch.

A program owns one tile (of query rows, or of keys in the dk/dv kernel) and walks, in steps of the other side's block,
over the stretch that its tile sees. In the middle of that stretch are steps in which every pair is visible, which need
no mask; what is before and behind needs one. All of it is known from the runs, so it is worked out once on the host:
the kernels hold no search, tiles without work are not launched, and the longest are launched first. Bounds need not
ascend for the tables to be right; where they do, as the schedule's always do, the tables are also tight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ring_worker.attention.schedule import Run

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

COLUMNS = ("tile", "start", "before", "full", "steps")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Row r sees the keys `[lo[r], hi[r])`, int32 [rows]; 0 and 0 if in no run. `seen` [keys]: read by some row."""

    lo: Ints
    hi: Ints
    seen: Flags

    @classmethod
    def of(cls, runs: Sequence[Run], rows: int, keys: int) -> Bounds:
        lo, hi = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        edges = np.zeros(keys + 1, np.int32)
        for run in runs:
            row = np.arange(run.rows, dtype=np.int32)
            lo[run.start : run.stop] = run.lo + row * run.lo_step
            hi[run.start : run.stop] = run.hi + row * run.hi_step
            edges[run.keys.start] += 1
            edges[run.keys.stop] -= 1
        return cls(lo, hi, np.cumsum(edges[:-1]) > 0)


def query_tiles(bounds: Bounds, block_q: int, block_k: int) -> Ints:
    """[tiles, COLUMNS]: query tiles of `block_q` rows and the keys, in steps of `block_k`, that they see."""
    live = bounds.hi > bounds.lo
    last = np.iinfo(np.int32).max
    start = _by_tile(np.where(live, bounds.lo, last), block_q, np.minimum, last)
    stop = _by_tile(np.where(live, bounds.hi, 0), block_q, np.maximum, 0)
    full_start = _by_tile(np.where(live, bounds.lo, 0), block_q, np.maximum, 0)
    full_stop = _by_tile(np.where(live, bounds.hi, last), block_q, np.minimum, last)
    return _table(start, stop, (full_start, full_stop), block_k)


def key_tiles(bounds: Bounds, block_k: int, block_q: int) -> Ints:
    """[tiles, COLUMNS]: key tiles of `block_k` keys and the query rows, in steps of `block_q`, that see them.

    Rows in no run may lie between those that see a tile, but never in its full steps.
    """
    rows = np.flatnonzero(bounds.hi > bounds.lo)
    key = np.arange(len(bounds.seen))
    last = np.iinfo(np.int32).max
    first_key = _by_tile(np.where(bounds.seen, key, last), block_k, np.minimum, last)
    stop_key = _by_tile(np.where(bounds.seen, key + 1, 0), block_k, np.maximum, 0)
    if not len(rows):
        return np.zeros((0, len(COLUMNS)), np.int32)
    lo, hi = bounds.lo[rows], bounds.hi[rows]
    first = np.searchsorted(
        np.maximum.accumulate(hi), first_key, side="right"
    )  # the first row that ends behind the key
    stop = np.searchsorted(_minimum_from(lo), stop_key, side="left")
    full_first = np.searchsorted(_minimum_from(hi), stop_key, side="left")  # from here on all rows reach the last key
    full_stop = np.searchsorted(np.maximum.accumulate(lo), first_key, side="right")
    unbroken = np.append(np.flatnonzero(np.diff(rows) > 1) + 1, len(rows))  # where stretches of neighbouring rows end
    full_stop = np.minimum(full_stop, unbroken[np.searchsorted(unbroken[:-1], full_first, side="right")])
    place = np.append(rows, rows[-1] + 1)
    after = np.append(0, rows + 1)
    return _table(place[first], after[stop], (place[full_first], after[full_stop]), block_q)


def of_steps(table: Ints, steps: str) -> Ints:
    """The rows of a table that have steps of a kind: "full", "masked", or "all"."""
    full, every = table[:, 3], table[:, 4]
    return table[{"all": every > 0, "full": full > 0, "masked": every > full}[steps]]


def _by_tile(values: Ints, block: int, reduce: np.ufunc, neutral: int) -> Ints:
    padded = np.full(-(-len(values) // block) * block, neutral, np.int64)
    padded[: len(values)] = values
    result: Ints = reduce.reduce(padded.reshape(-1, block), axis=1)
    return result


def _minimum_from(values: Ints) -> Ints:
    """[i] -> the minimum of `values[i:]`."""
    return np.minimum.accumulate(values[::-1])[::-1]


def _table(start: Ints, stop: Ints, full: tuple[Ints, Ints], block: int) -> Ints:
    """Positions to steps; tiles without any are left out, and the longest come first."""
    steps = np.maximum(-(-(stop - start) // block), 0)
    before = np.clip(-(-(full[0] - start) // block), 0, steps)
    whole = np.clip((full[1] - start) // block - before, 0, steps - before)
    table = np.stack([np.arange(len(start)), start, before, whole, steps], axis=1)[steps > 0]
    longest_first: Ints = table[np.argsort(-table[:, 4], kind="stable")].astype(np.int32)
    return longest_first
