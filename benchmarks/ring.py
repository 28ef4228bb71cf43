"""A ring of gloo processes on the CPU against torch's kernel over the whole sequence in one process with all cores.

    python -m benchmarks.ring [--lengths 8192 32768] [--ranks 4] [--json FILE]

Forward and backward of causal zigzag attention, fp32, 8 query and 2 key heads of 64. Both sides are timed in turns in
the same run, so that what else the machine does falls on both. The ring's time is that of its slowest rank, from a
barrier to the end. Beside the ratio: where the ring's time goes, by the same meter that a training run reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from ring_worker.attention.calibrate import calibrate
from ring_worker.attention.function import ring_attention
from ring_worker.attention.layout import Layout
from ring_worker.attention.masks import CAUSAL
from ring_worker.attention.ring import Ring
from ring_worker.attention.transport import GlooTransport
from ring_worker.telemetry.figures import ring_figures
from ring_worker.telemetry.record import PassTimes

HEADS, GROUPS, SIZE = 8, 2, 64
LAYOUT = "zigzag"


def main() -> None:
    options = _options()
    if options.rank is not None:
        return _rank(options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [_start(rank, options, port) for rank in range(options.ranks)]
    results = _single_side(options, port)
    if any(process.wait() for process in ranks):
        sys.exit("a rank failed")
    _show(results, options)
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768], help="tokens")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(rank: int, options: argparse.Namespace, port: int) -> subprocess.Popen[bytes]:
    own = ["--rank", str(rank), "--port", str(port), "--ranks", str(options.ranks), "--repeats", str(options.repeats)]
    lengths = ["--lengths", *map(str, options.lengths)]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.ring", *own, *lengths])


def _meet(rank: int, options: argparse.Namespace, port: int) -> None:
    """All ranks of the ring, and one more process: the single side."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=options.ranks + 1)


def _tensors(length: int) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    shapes = [(1, HEADS, length, SIZE), (1, GROUPS, length, SIZE), (1, GROUPS, length, SIZE), (1, HEADS, length, SIZE)]
    return [torch.randn(shape, generator=make) for shape in shapes]


def _once(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor, attend: Any) -> tuple[float, float]:
    """(forward, backward) seconds."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    start = time.perf_counter()
    o = attend(q, k, v)
    middle = time.perf_counter()
    torch.autograd.grad(o, (q, k, v), do)
    return middle - start, time.perf_counter() - middle


def _single_side(options: argparse.Namespace, port: int) -> list[dict[str, Any]]:
    """The process that is no rank: times the one kernel while the ring waits, and collects what the ring measured."""
    _meet(options.ranks, options, port)
    ring_group = dist.new_group(list(range(options.ranks)))
    assert ring_group is not None
    torch.set_num_threads(os.cpu_count() or 1)
    results = []
    for length in options.lengths:
        q, k, v, do = _tensors(length)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        dist.barrier()  # the ranks have calibrated
        singles, ring_times = [], []
        for _ in range(options.repeats + 1):
            singles.append(_once(q, k, v, do, attend))
            dist.barrier()
            ring_times.append(_slowest(torch.zeros(2)))
        gathered: list[Any] = [None] * (options.ranks + 1)
        dist.all_gather_object(gathered, None)
        results.append(_result(length, singles[1:], ring_times[1:], gathered[: options.ranks], options.repeats))
    dist.destroy_process_group()
    return results


def _slowest(seconds: torch.Tensor) -> tuple[float, float]:
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds[0]), float(seconds[1])


def _rank(options: argparse.Namespace) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.ranks))
    _meet(options.rank, options, options.port)
    group = dist.new_group(list(range(options.ranks)))
    assert group is not None
    transport = GlooTransport(group)
    for length in options.lengths:
        layout = Layout(LAYOUT, length, options.ranks)
        place = torch.from_numpy(layout.positions(options.rank))
        q, k, v, do = (x.index_select(2, place) for x in _tensors(length))
        ring = Ring(layout, transport)
        ring.meter.calibration = calibrate(ring, q[:, :, :2048], k[:, :, :2048], group)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ring: Ring = ring) -> torch.Tensor:
            return ring_attention(q, k, v, ring, CAUSAL)

        dist.barrier()
        for repeat in range(options.repeats + 1):
            dist.barrier()
            _slowest(torch.tensor(_once(q, k, v, do, attend)))
            if repeat == 0:
                ring.meter.take()  # warm-up
        dist.all_gather_object([None] * (options.ranks + 1), [asdict(times) for times in ring.meter.take()])
    dist.destroy_process_group()


def _result(
    length: int,
    singles: list[tuple[float, float]],
    rings: list[tuple[float, float]],
    meters: list[list[dict[str, Any]]],
    repeats: int,
) -> dict[str, Any]:
    single, ring = _median(singles), _median(rings)
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
    return {"length": length, "ratio": sum(ring) / sum(single), **phases}


def _median(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the sums; the pair whose sum it is."""
    return sorted(pairs, key=sum)[len(pairs) // 2]


def _show(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    cores = os.cpu_count()
    table = Table(
        title=f"ring of {options.ranks} gloo processes / one kernel with {cores} threads, median of {options.repeats}"
    )
    for column in (
        "tokens",
        "phase",
        "one kernel s",
        "ring s",
        "ratio",
        "compute s",
        "exposed s",
        "rest s",
        "efficiency",
    ):
        table.add_column(column, justify="right")
    for result in results:
        for phase in ("forward", "backward"):
            figures = result[phase]
            spent = figures["per_rank_seconds"]
            rest = spent["wall"] - spent["compute"] - spent["exposed"]
            numbers = (figures["single_seconds"], figures["ring_seconds"], figures["ratio"], spent["compute"])
            more = (spent["exposed"], rest, figures["ring_efficiency"])
            table.add_row(str(result["length"]), phase, *(f"{x:.3f}" for x in (*numbers, *more)))
        table.add_row(str(result["length"]), "both", "", "", f"{result['ratio']:.3f}", "", "", "", "", end_section=True)
    Console(width=110).print(table)
    if options.json:
        about = {
            "benchmark": "ring",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{cores} cores, {_processor()}",
            "torch": torch.__version__,
            "commit": _commit(),
            "ranks": options.ranks,
            "results": results,
        }
        options.json.write_text(json.dumps(about, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
