"""One attention kernel over a whole sequence: ours against torch's flash, cuDNN and flex kernels.

    python -m benchmarks.attention [--lengths 8192 16384] [--sizes 64 128] [--masks causal full] [--json FILE]

On a GPU: bf16, batch 1, 32 query and 8 key heads. Without one, or with --cpu, the same program at small sizes in fp32,
8 query and 2 key heads: our CPU kernel and the plain twin against torch's CPU kernel.

Each problem is first run once by each candidate, which warms it up and gives its error: sampled rows against dense
fp64. Then the candidates are timed in turns, a forward and a backward pass each, so that what else the machine does and
how warm it is falls on all; the figure is the median. On a GPU CUDA events are read, and the L2 cache is overwritten
before each pass; clocks are left alone. A candidate that is missing, fails or runs out of memory says so in its cell.
The results so far are written after each problem.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from benchmarks.candidates import CANDIDATES, Attention, Candidate, Problem
from benchmarks.exact import Inputs, Truth, errors, truth_of
from benchmarks.machine import about, device_name, slug

BACKWARD_FLOPS = 2.5  # times those of the forward pass
LONGEST_BACKWARD = 262_144
GPU_LENGTHS = (8192, 16_384, 32_768, 65_536, 131_072, 262_144, 1_048_576)
CPU_LENGTHS = (1024, 4096)
L2_BYTES = 256 * 2**20  # more than any GPU's L2
HEAD_START = 2_000_000  # GPU cycles, about a millisecond: the host queues a pass before the GPU begins it

Cell = dict[str, Any]


class Clock(Protocol):
    def time(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """(what the work returns, seconds)."""


class HostClock:
    def time(self, work: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = work()
        return result, time.perf_counter() - start


class GpuClock:
    """The GPU's own time: launches that the host has queued in good time are not in it."""

    def __init__(self, device: torch.device) -> None:
        self._cold = torch.empty(L2_BYTES, dtype=torch.uint8, device=device)

    def time(self, work: Callable[[], Any]) -> tuple[Any, float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._cold.zero_()
        torch.cuda._sleep(HEAD_START)
        start.record()
        result = work()
        end.record()
        end.synchronize()
        return result, start.elapsed_time(end) / 1000


@dataclass(frozen=True, slots=True)
class Effort:
    """At most `repeats` rounds, fewer where they would take more than `seconds`, but never fewer than three."""

    repeats: int
    seconds: float

    def rounds(self, one_round: float) -> int:
        return max(min(3, self.repeats), min(self.repeats, int(self.seconds / max(one_round, 1e-9))))


def main() -> None:
    options = _options_of(sys.argv[1:])
    device = torch.device("cpu" if options.cpu or not torch.cuda.is_available() else "cuda")
    console = Console(width=130)
    if device.type == "cpu":
        console.print("A CPU run: small sizes, fp32, and nothing said about any GPU.", style="bold")
    head = about("attention", device)
    path = options.json or _default_path(device, head["date"])
    results: list[dict[str, Any]] = []
    for result in _results(problems(options, device), Effort(options.repeats, options.seconds), console):
        results.append(result)
        path.write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
    console.print(table(results, head))
    for line in missing(results):
        console.print(f"not run: {line}")
    console.print(f"written to {path}")


def _options_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens; past 256K forward only")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="head sizes")
    parser.add_argument("--masks", choices=("causal", "full"), nargs="+", default=["causal", "full"])
    parser.add_argument("--repeats", type=int, default=20, help="rounds of a problem, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for a problem's rounds; three are always made")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/attention-DEVICE-DATE.json")
    return parser.parse_args(words)


def _default_path(device: torch.device, date: str) -> Path:
    return Path(__file__).parent / "results" / f"attention-{slug(device_name(device))}-{date[:10]}.json"


def problems(options: argparse.Namespace, device: torch.device) -> list[Problem]:
    gpu = device.type == "cuda"
    lengths = options.lengths or (GPU_LENGTHS if gpu else CPU_LENGTHS)
    heads, key_heads, dtype = (32, 8, torch.bfloat16) if gpu else (8, 2, torch.float32)
    return [
        Problem(n, size, mask == "causal", heads, key_heads, dtype, device, backward=n <= LONGEST_BACKWARD)
        for n, size, mask in product(lengths, options.sizes, options.masks)
    ]


def _results(chosen: Sequence[Problem], effort: Effort, console: Console) -> Iterator[dict[str, Any]]:
    clock: Clock = GpuClock(chosen[0].device) if chosen[0].device.type == "cuda" else HostClock()
    with Progress(console=console) as progress:
        task = progress.add_task("attention", total=len(chosen))
        for problem in chosen:
            label = f"{problem.length} tokens, head size {problem.head_size}, {_mask(problem)}"
            progress.update(task, description=label)
            cells = measure(problem, CANDIDATES, clock, effort)
            progress.console.print(f"{label}: {_line(cells)}")
            progress.advance(task)
            yield {**_parameters(problem), "candidates": cells}


def _parameters(problem: Problem) -> dict[str, Any]:
    sizes = {"length": problem.length, "head_size": problem.head_size, "mask": _mask(problem)}
    return {**sizes, "heads": problem.heads, "key_heads": problem.key_heads, "dtype": str(problem.dtype)[6:]}


def _mask(problem: Problem) -> str:
    return "causal" if problem.causal else "full"


def _line(cells: dict[str, Cell]) -> str:
    """TFLOP/s forward / backward of all that ran or tried to."""
    return ", ".join(f"{name} {_short(cell)}" for name, cell in cells.items() if "missing" not in cell)


def _short(cell: Cell) -> str:
    rates = [f"{cell[phase]['tflops']:.3g}" for phase in ("forward", "backward") if phase in cell]
    return " / ".join(rates) or f"({cell['failed']})"


def measure(problem: Problem, candidates: Sequence[Candidate], clock: Clock, effort: Effort) -> dict[str, Cell]:
    """name -> the candidate's figures: "errors", and of "forward" and "backward" the seconds, TFLOP/s and, of ours,
    the ratio to the best other. Or "missing", the reason why it does not run here; or "failed", how.
    """
    try:
        x = _inputs(problem)
        truth = truth_of(x, problem.causal, problem.backward)
    except torch.OutOfMemoryError:
        return {c.name: {"failed": "out of memory for the inputs and the exact rows"} for c in candidates}
    cells: dict[str, Cell] = {}
    live: dict[str, Attention] = {}
    for c in candidates:
        cells[c.name] = _warm(c, problem, x, truth, live)
    del truth
    _time_in_turns(problem, x, live, cells, (clock, effort))
    _compare(candidates, cells)
    return cells


def _inputs(problem: Problem) -> Inputs:
    draw = torch.Generator(problem.device).manual_seed(0)
    options: dict[str, Any] = {"device": problem.device, "dtype": problem.dtype}
    queries, keys = ((1, n, problem.length, problem.head_size) for n in (problem.heads, problem.key_heads))
    q, k, v = (torch.randn(shape, generator=draw, **options) for shape in (queries, keys, keys))
    if not problem.backward:  # a `do` that no one reads takes no memory
        return Inputs(q, k, v, torch.zeros((), **options).expand(queries))
    return Inputs(q, k, v, torch.randn(queries, generator=draw, **options))


def _warm(c: Candidate, problem: Problem, x: Inputs, truth: Truth, live: dict[str, Attention]) -> Cell:
    """The candidate's errors; it joins `live` if it runs."""
    if reason := c.why_not(problem):
        return {"missing": reason}
    try:
        attend = c.make(problem)
        cell: Cell = {"errors": errors(attend, x, truth)}
    except Exception as error:  # whatever a library raises is this candidate's result, not the benchmark's end
        return {"failed": _reason(error)}
    live[c.name] = attend
    return cell


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def _time_in_turns(
    problem: Problem, x: Inputs, live: dict[str, Attention], cells: dict[str, Cell], how: tuple[Clock, Effort]
) -> None:
    """Adds the phases to the cells. A candidate that fails now has a reason instead of a time."""
    clock, effort = how
    times: dict[str, list[dict[str, float]]] = {name: [] for name in live}
    done, rounds = 0, 1
    while done < rounds:
        for name in list(live):
            try:
                times[name].append(_once(live[name], x, problem.backward, clock))
            except Exception as error:
                cells[name] = {"failed": _reason(error)}
                del live[name], times[name]
        done += 1
        if done == 1:
            rounds = effort.rounds(sum(sum(t[0].values()) for t in times.values()))
    for name, taken in times.items():
        cells[name] |= {phase: _phase(problem, phase, [t[phase] for t in taken]) for phase in taken[0]}


def _once(attend: Attention, x: Inputs, backward: bool, clock: Clock) -> dict[str, float]:
    inputs = [t.detach().requires_grad_(backward) for t in (x.q, x.k, x.v)]
    o, seconds = clock.time(lambda: attend(*inputs))
    found = {"forward": seconds}
    if backward:
        _, found["backward"] = clock.time(lambda: _gradients(o, inputs, x.do))
    return found


def _gradients(o: Tensor, inputs: list[Tensor], do: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(o, inputs, do)


def _phase(problem: Problem, phase: str, seconds: list[float]) -> dict[str, Any]:
    flops = problem.forward_flops * (BACKWARD_FLOPS if phase == "backward" else 1)
    median = statistics.median(seconds)
    return {"seconds": median, "tflops": flops / median / 1e12, "fastest": min(seconds), "rounds": len(seconds)}


def _compare(candidates: Sequence[Candidate], cells: dict[str, Cell]) -> None:
    """Adds `to_best` to ours: the rate over that of the fastest other."""
    for phase in ("forward", "backward"):
        others = [cells[c.name][phase]["tflops"] for c in candidates if not c.ours and phase in cells[c.name]]
        for c in candidates:
            if others and c.ours and phase in cells[c.name]:
                cells[c.name][phase]["to_best"] = cells[c.name][phase]["tflops"] / max(others)


def table(results: Sequence[dict[str, Any]], head: dict[str, Any]) -> Table:
    place = f"{head['device']}, {head['machine']}, load {head['load']}"
    title = f"{place}, torch {head['torch']}, commit {head['commit']}, {head['date'][:10]}"
    shown = Table(title=title)
    for name in ("tokens", "head size", "mask", "kernel"):
        shown.add_column(name)
    for name in ("forward TFLOP/s", "/ best other", "backward TFLOP/s", "/ best other", "error o", "dq dk dv"):
        shown.add_column(name, justify="right")
    for result in results:
        where = [str(result["length"]), str(result["head_size"]), result["mask"]]
        for name, cell in result["candidates"].items():
            if "missing" not in cell:
                shown.add_row(*where, name, *_row(cell))
                where = ["", "", ""]
        shown.add_section()
    return shown


def missing(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each candidate and reason why it did not run."""
    cells = [pair for result in results for pair in result["candidates"].items()]
    return list(dict.fromkeys(f"{name}: {cell['missing']}" for name, cell in cells if "missing" in cell))


def _row(cell: Cell) -> list[str]:
    if "failed" in cell:
        return [cell["failed"]]
    found = []
    for phase in ("forward", "backward"):
        times = cell.get(phase, {})
        found += [f"{times[key]:.3g}" if key in times else "" for key in ("tflops", "to_best")]
    relative = {name: error["relative"] for name, error in cell["errors"].items()}
    gradients = [relative[name] for name in ("dq", "dk", "dv") if name in relative]
    return [*found, f"{relative['o']:.1e}", f"{max(gradients):.1e}" if gradients else ""]


if __name__ == "__main__":
    main()
