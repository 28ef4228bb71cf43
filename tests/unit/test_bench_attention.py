"""The attention benchmark: what it counts, what it calls an error, and that one bad candidate does not end it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2]))  # benchmarks run from the root and are not installed

from benchmarks import attention, machine
from benchmarks.attention import Effort, _inputs, measure, missing, problems, table
from benchmarks.candidates import CANDIDATES, Attention, Candidate, Problem
from benchmarks.exact import ROWS, errors, sampled, truth_of

CPU = torch.device("cpu")
SMALL = Problem(50, 16, causal=True, heads=4, key_heads=2, dtype=torch.float32, device=CPU)
EFFORT = Effort(repeats=3, seconds=1.0)


class Ticking:
    """Every pass takes as many seconds as `passes` says, in turn."""

    def __init__(self, *passes: float) -> None:
        self._passes, self._at = passes, 0

    def time(self, work: Callable[[], Any]) -> tuple[Any, float]:
        self._at += 1
        return work(), self._passes[(self._at - 1) % len(self._passes)]


def dense(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = q @ k.mT * q.shape[-1] ** -0.5
    hidden = torch.ones(s.shape[-2:], dtype=torch.bool).triu(1) & causal
    return s.masked_fill(hidden, -torch.inf).softmax(-1) @ v


def candidate(name: str, make: Callable[[Problem], Attention], ours: bool = False, why: str | None = None) -> Candidate:
    return Candidate(name, ours, make, lambda problem: why)


def exact(problem: Problem) -> Attention:
    return lambda q, k, v: dense(q, k, v, problem.causal)


@pytest.mark.parametrize(
    "length, causal, pairs, flops",
    [(4, False, 16, 4 * 16 * 16 * 4), (4, True, 10, 4 * 10 * 16 * 4), (1, True, 1, 4 * 16 * 4)],
)
def test_flops_are_those_of_the_pairs_that_are_seen(length: int, causal: bool, pairs: int, flops: int) -> None:
    problem = replace(SMALL, length=length, causal=causal)
    assert (problem.pairs, problem.forward_flops) == (pairs, flops)


@pytest.mark.parametrize(
    "repeats, seconds, one_round, rounds",
    [(20, 10.0, 0.1, 20), (20, 10.0, 1.0, 10), (20, 10.0, 60.0, 3), (1, 10.0, 60.0, 1), (20, 10.0, 0.0, 20)],
)
def test_long_problems_are_repeated_less_but_three_times(
    repeats: int, seconds: float, one_round: float, rounds: int
) -> None:
    assert Effort(repeats, seconds).rounds(one_round) == rounds


@pytest.mark.parametrize("length, count", [(1, 1), (2, 2), (5, 5), (100_000, ROWS)])
def test_rows_are_sampled_with_the_first_and_the_last(length: int, count: int) -> None:
    rows = sampled(length, CPU).tolist()
    assert rows == sorted(set(rows))
    assert {0, length - 1} <= set(rows)
    assert len(rows) <= count


@pytest.mark.parametrize("causal", [True, False])
def test_sampled_rows_are_those_of_dense_attention_with_its_gradients(causal: bool) -> None:
    x = _inputs(replace(SMALL, length=90, causal=causal, dtype=torch.float64))
    truth = truth_of(x, causal, backward=True)
    inputs = [t.requires_grad_() for t in (x.q, x.k, x.v)]
    o = dense(*inputs, causal)
    do = torch.zeros_like(x.do).index_copy_(2, truth.rows, x.do[:, :, truth.rows])
    dq, dk, dv = torch.autograd.grad(o, inputs, do)
    torch.testing.assert_close(truth.o, o[:, :, truth.rows].detach())
    torch.testing.assert_close(truth.gradients, {"dq": dq[:, :, truth.rows], "dk": dk, "dv": dv})


def test_a_forward_problem_has_neither_gradients_nor_an_upstream_one() -> None:
    x = _inputs(replace(SMALL, backward=False))
    truth = truth_of(x, causal=True, backward=False)
    assert truth.gradients == {}
    assert x.do.untyped_storage().nbytes() == 4
    assert set(errors(exact(SMALL), x, truth)) == {"o"}


def test_a_kernel_that_sees_one_key_too_many_has_an_error() -> None:
    x = _inputs(SMALL)
    truth = truth_of(x, causal=True, backward=True)
    right = errors(exact(SMALL), x, truth)
    wrong = errors(exact(replace(SMALL, causal=False)), x, truth)
    assert all(right[name]["relative"] < 1e-5 < 0.01 < wrong[name]["relative"] for name in ("o", "dq", "dk", "dv"))


def broken(problem: Problem) -> Attention:
    raise ValueError("no plan\nand a long story")


def full(problem: Problem) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("many GiB")

    return attend


def tiring(problem: Problem) -> Attention:
    left = [2]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("many GiB")
        return dense(q, k, v, problem.causal)

    return attend


def test_a_candidate_that_fails_says_so_and_the_others_are_timed() -> None:
    table_of = (
        candidate("ours", exact, ours=True),
        candidate("absent", exact, why="not built"),
        candidate("broken", broken),
        candidate("full", full),
        candidate("tiring", tiring),
        candidate("other", exact),
    )
    cells = measure(SMALL, table_of, Ticking(1.0), EFFORT)
    assert cells["absent"] == {"missing": "not built"}
    assert cells["broken"] == {"failed": "ValueError: no plan"}
    assert cells["full"] == cells["tiring"] == {"failed": "out of memory"}
    assert set(cells["ours"]) == set(cells["other"]) == {"errors", "forward", "backward"}


def test_rates_are_medians_and_ours_are_compared_with_the_best_other() -> None:
    rivals = (candidate("ours", exact, ours=True), candidate("slow", exact), candidate("fast", exact))
    turns = ((2.0, 8.0), (4.0, 16.0), (1.0, 2.0))  # (forward, backward) of each candidate
    first = [seconds for turn in turns for seconds in turn]
    clock = Ticking(*first, *(10 * s for s in first), *first)
    cells = measure(SMALL, rivals, clock, Effort(repeats=3, seconds=0.0))
    assert cells["ours"]["forward"] == {
        "seconds": 2.0,
        "tflops": pytest.approx(SMALL.forward_flops / 2e12),
        "fastest": 2.0,
        "rounds": 3,
        "to_best": pytest.approx(0.5),
    }
    assert cells["ours"]["backward"]["tflops"] == pytest.approx(2.5 * SMALL.forward_flops / 8e12)
    assert cells["ours"]["backward"]["to_best"] == pytest.approx(0.25)
    assert "to_best" not in cells["fast"]["forward"]


def test_inputs_that_do_not_fit_are_every_candidates_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(problem: Problem) -> None:
        raise torch.OutOfMemoryError("many GiB")

    monkeypatch.setattr(attention, "_inputs", too_much)
    cells = measure(SMALL, (candidate("ours", exact), candidate("other", exact)), Ticking(1.0), EFFORT)
    assert [cell["failed"] for cell in cells.values()] == ["out of memory for the inputs and the exact rows"] * 2


@pytest.mark.parametrize("causal", [True, False])
def test_every_candidate_of_the_cpu_is_exact_there_and_the_others_say_why_not(causal: bool) -> None:
    cells = measure(replace(SMALL, causal=causal), CANDIDATES, Ticking(1.0), EFFORT)
    ran = {name for name, cell in cells.items() if "errors" in cell}
    assert ran == {"ours", "ring of 8 in a loop", "plain twin", "torch on the CPU"}
    assert all(cell["missing"] for name, cell in cells.items() if name not in ran)
    worst = {name: max(e["relative"] for e in cells[name]["errors"].values()) for name in ran}
    assert max(worst.values()) < 1e-5, worst


@pytest.mark.parametrize("lengths, backward", [([262_144], [True]), ([262_145], [False])])
def test_past_256k_there_is_no_backward(lengths: list[int], backward: list[bool]) -> None:
    options = attention._options_of(["--lengths", *map(str, lengths), "--sizes", "64", "--masks", "full"])
    assert [p.backward for p in problems(options, CPU)] == backward


def test_the_problems_of_a_gpu_are_those_of_the_design() -> None:
    found = problems(attention._options_of([]), torch.device("cuda"))
    assert len(found) == 7 * 2 * 2
    assert {(p.heads, p.key_heads, p.dtype) for p in found} == {(32, 8, torch.bfloat16)}
    assert max(p.length for p in found if p.backward) == 262_144


def shown(results: list[dict[str, Any]]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(results, machine.about("attention", CPU)))
    return console.export_text()


def test_the_program_runs_on_the_cpu_and_writes_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["attention", "--cpu", "--lengths", "64", "--repeats", "1", "--json", str(path)])
    attention.main()
    found = json.loads(path.read_text())
    assert {"benchmark", "date", "machine", "load", "device", "torch", "triton", "commit"} <= set(found)
    assert [(r["length"], r["head_size"], r["mask"]) for r in found["results"]] == [
        (64, 64, "causal"),
        (64, 64, "full"),
        (64, 128, "causal"),
        (64, 128, "full"),
    ]
    said = capsys.readouterr().out
    assert "A CPU run" in said
    assert "not run: torch cudnn: runs on NVIDIA GPUs, not on cpu" in said
    assert f"{found['results'][0]['candidates']['ours']['forward']['tflops']:.3g}" in said


def test_a_failure_has_a_row_and_an_absence_a_line_below() -> None:
    cells = {"ours": {"missing": "not built"}, "other": {"failed": "out of memory"}}
    results = [{"length": n, "head_size": 64, "mask": "full", "candidates": cells} for n in (8, 16)]
    assert missing(results) == ["ours: not built"]
    assert shown(results).count("out of memory") == 2
    assert "not built" not in shown(results)


@pytest.mark.parametrize(
    "name, file", [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("cpu", "cpu"), (" A (b) ", "a-b")]
)
def test_a_device_has_a_name_for_files(name: str, file: str) -> None:
    assert machine.slug(name) == file


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.commit() != "unknown"
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"
