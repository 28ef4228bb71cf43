"""A ring of gloo processes on the CPU against torch's kernel over the whole sequence in one process with all cores.

Forward and backward in fp32, by layout and mask. Both sides are timed in turns in the same run, so that what else the
machine does falls on both. The ring's time is that of its slowest rank, from a barrier to the end. Beside the ratio:
where the ring's time goes, by the same meter that a training run reports.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from rich.table import Table

from benchmarks.ring.cases import masks, median, one_kernel, tensors, timed
from ring_worker.attention import Layout, Ring, ring_attention, shard
from ring_worker.attention.calibrate import calibrate
from ring_worker.attention.transport import GlooTransport
from ring_worker.telemetry.figures import ring_figures
from ring_worker.telemetry.record import PassTimes

CASES = (
    ("zigzag", "causal"),
    ("striped", "causal"),
    ("contiguous", "causal"),
    ("zigzag", "full"),
    ("zigzag", "window"),
    ("contiguous", "window"),
    ("contiguous", "window + 16 global"),
    ("zigzag", "documents"),
    ("contiguous", "documents"),
)
STRIPE = 128


@dataclass(frozen=True, slots=True)
class Job:
    """What every process of the benchmark is told."""

    ranks: int
    repeats: int
    port: int
    cases: list[tuple[int, str, str]]  # length, layout, mask


def measure(lengths: list[int], long_lengths: list[int], ranks: int, repeats: int) -> list[dict[str, Any]]:
    """All cases at `lengths`, and causal zigzag at `long_lengths`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cases = [(length, *case) for length in lengths for case in CASES]
    cases += [(length, *CASES[0]) for length in long_lengths]
    job = Job(ranks, repeats, port, cases)
    command = [sys.executable, "-m", "benchmarks.ring.gloo", json.dumps(asdict(job))]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(ranks)]
    try:
        results = _single_side(job)
        if any(process.wait() for process in processes):
            sys.exit("a rank failed")
    finally:
        for process in processes:
            process.kill()
    return results


def _meet(rank: int, job: Job) -> dist.ProcessGroup:
    """All ranks of the ring, and one more process: the single side. Returns the group of the ring."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{job.port}", rank=rank, world_size=job.ranks + 1)
    group = dist.new_group(list(range(job.ranks)))
    assert group is not None
    return group


def _single_side(job: Job) -> list[dict[str, Any]]:
    """The process that is no rank: times the one kernel while the ring waits, and collects what the ring measured."""
    _meet(job.ranks, job)
    torch.set_num_threads(os.cpu_count() or 1)
    results = []
    for done, case in enumerate(job.cases):
        print(f"gloo: case {done + 1} of {len(job.cases)}: {case[1]} {case[2]}, {case[0]} tokens", file=sys.stderr)
        results.append(_single_case(job, *case))
    dist.destroy_process_group()
    return results


def _single_case(job: Job, length: int, kind: str, name: str) -> dict[str, Any]:
    given, (what, attend) = tensors(length), one_kernel(masks(length)[name], length)
    dist.barrier()  # the ranks have calibrated
    singles, rings = [], []
    for _ in range(job.repeats + 1):
        singles.append(timed(attend, *given))
        dist.barrier()
        rings.append(_slowest(torch.zeros(2)))
    gathered: list[Any] = [None] * (job.ranks + 1)
    dist.all_gather_object(gathered, None)
    head = {"length": length, "layout": kind, "mask": name, "against": what}
    return head | _result(median(singles[1:]), median(rings[1:]), gathered[: job.ranks], job.repeats)


def _slowest(seconds: torch.Tensor) -> tuple[float, float]:
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds[0]), float(seconds[1])


def _rank(rank: int, job: Job) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // job.ranks))
    group = _meet(rank, job)
    transport = GlooTransport(group)
    for length, kind, name in job.cases:
        _rank_case(Ring(Layout(kind, length, job.ranks, stripe=STRIPE), transport), group, name, job)
    dist.destroy_process_group()


def _rank_case(ring: Ring, group: dist.ProcessGroup, name: str, job: Job) -> None:
    length = ring.layout.length
    q, k, v, do = (shard(x, ring.layout, ring.rank, dim=2) for x in tensors(length))
    ring.meter.calibration = calibrate(ring, q[:, :, :2048], k[:, :, :2048], group)
    mask = masks(length)[name]
    dist.barrier()
    for repeat in range(job.repeats + 1):
        dist.barrier()
        _slowest(torch.tensor(timed(lambda q, k, v: ring_attention(q, k, v, ring, mask), q, k, v, do)))
        if repeat == 0:
            ring.meter.take()  # warm-up
    dist.all_gather_object([None] * (job.ranks + 1), [asdict(times) for times in ring.meter.take()])


def _result(
    single: tuple[float, float], ring: tuple[float, float], meters: list[list[dict[str, Any]]], repeats: int
) -> dict[str, Any]:
    phases = {}
    for index, phase in enumerate(("forward", "backward")):
        total = sum((PassTimes(**meter[index]) for meter in meters), PassTimes())
        spent = {
            kind: getattr(total, kind) / (repeats * len(meters))
            for kind in ("wall", "compute", "comm", "exposed", "skew", "ideal")
        }
        phases[phase] = {
            "single_seconds": single[index],
            "ring_seconds": ring[index],
            "ratio": ring[index] / single[index],
            "per_rank_seconds": spent,
            "ring_efficiency": total.ideal / total.wall,
            "hidden_ratio": ring_figures(0, [(total, PassTimes())]).hidden_ratio,
            "bytes_per_rank": total.bytes // (repeats * len(meters)),
        }
    return {"ratio": sum(ring) / sum(single), **phases}


def show(results: list[dict[str, Any]], ranks: int, repeats: int) -> Table:
    cores = os.cpu_count()
    table = Table(title=f"ring of {ranks} gloo processes / one kernel with {cores} threads, median of {repeats}")
    for column in ("tokens", "layout", "mask", "against"):
        table.add_column(column)
    for column in ("forward", "backward", "both", "efficiency", "waiting", "MB sent a rank"):
        table.add_column(column, justify="right")
    for r in results:
        forward, backward = r["forward"], r["backward"]
        ratios = (f"{x:.3f}" for x in (forward["ratio"], backward["ratio"], r["ratio"]))
        walls = [phase["per_rank_seconds"] for phase in (forward, backward)]
        waiting = sum(w["exposed"] for w in walls) / sum(w["wall"] for w in walls)
        efficiency = sum(w["ideal"] for w in walls) / sum(w["wall"] for w in walls)
        sent = (forward["bytes_per_rank"] + backward["bytes_per_rank"]) / 1e6
        words = str(r["length"]), r["layout"], r["mask"], r["against"]
        table.add_row(*words, *ratios, f"{efficiency:.2f}", f"{waiting:.0%}", f"{sent:.2f}")
    return table


def main() -> None:
    """One rank, started by `measure`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=json.loads)
    parser.add_argument("rank", type=int)
    options = parser.parse_args()
    _rank(options.rank, Job(**options.job))


if __name__ == "__main__":
    main()
