"""Runs that go to a library's kernel, here torch's CPU flash op behind the same signature, against the fp64 twin."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import triton_cases as cases
from ring_worker.attention import kernels
from ring_worker.attention.kernels import choose, library
from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel
from ring_worker.attention.kernels.fastest import Shape, fastest, seconds_of
from ring_worker.attention.kernels.interface import Block, Carry, Gradients, Saved
from ring_worker.attention.kernels.library import BACKENDS, Backend, Done, LibraryKernel, Piece, available, divide
from ring_worker.attention.kernels.reference import ReferenceKernel
from ring_worker.attention.schedule import Run
from triton_cases import Case

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def cpu_forward(x: Piece) -> tuple[Tensor, Tensor]:
    q, k, v = (t.float() for t in (x.q, x.k, x.v))
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    o, lse = op(q, k, v, 0.0, x.causal, scale=x.scale)
    return o.to(x.q.dtype), lse


def cpu_backward(x: Piece, done: Done) -> tuple[Tensor, Tensor, Tensor]:
    do, q, k, v, o = (t.float() for t in (done.do, x.q, x.k, x.v, done.o))
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    dq, dk, dv = op(do, q, k, v, o, done.lse, 0.0, x.causal, scale=x.scale)
    return dq.to(x.q.dtype), dk.to(x.q.dtype), dv.to(x.q.dtype)


ON_CPU = {"cpu": Backend(cpu_forward, cpu_backward, lambda *_: None)}


class Listening:
    """The fp64 twin's arithmetic as the fallback, and what it was asked for."""

    name = "listening"

    def __init__(self) -> None:
        self.runs: list[tuple[Run, ...]] = []

    def forward(self, q: Tensor, block: Block, carry: Carry) -> None:
        self.runs.append(tuple(block.runs))
        ReferenceKernel().forward(q, block, carry)

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None:
        self.runs.append(tuple(block.runs))
        ReferenceKernel().backward(saved, block, gradients)


def kernel(rounding: bool = False, fallback: Listening | None = None, least: int = 1) -> LibraryKernel:
    return LibraryKernel("cpu", fallback or Listening(), rounding_partials=rounding, least=least, backends=ON_CPU)


RECTANGLE, SQUARE = Run(0, 60, 10, 110, 0, 0), Run(0, 100, 0, 1, 0, 1)
STAIR, BAND = Run(5, 95, 0, 20, 0, 1), Run(0, 100, 0, 9, 1, 1)
FIRST, SECOND = Run(0, 40, 0, 1, 0, 1), Run(40, 100, 40, 41, 0, 1)
MASKS = {
    "rectangle": (RECTANGLE,),
    "square": (SQUARE,),
    "square behind a rectangle": (STAIR,),
    "band": (BAND,),
    "closing": (Run(0, 60, 0, 60, 1, 0),),
    "documents": (FIRST, SECOND),
    "square, then band": (FIRST, Run(40, 100, 1, 41, 1, 1)),
    "two rectangles on the same keys": (Run(0, 40, 0, 70, 0, 0), Run(50, 100, 30, 110, 0, 0)),
    "gaps in rows and keys": (Run(3, 10, 0, 7, 0, 0), Run(12, 50, 20, 21, 0, 1), Run(90, 99, 100, 101, 1, 1)),
    "one pair": (Run(41, 42, 70, 71, 0, 0),),
    "nothing": (),
}
SHAPES = {
    "four heads on one": Case((SQUARE,), heads=4),
    "two groups of three, two of a batch": Case((FIRST, Run(40, 100, 40, 49, 1, 1)), heads=6, key_heads=2, batch=2),
    "bf16": Case((FIRST, SECOND), head_size=64, dtype=torch.bfloat16),
    "fp16": Case((RECTANGLE,), head_size=32, dtype=torch.float16),
}
CASES = {name: Case(mask) for name, mask in MASKS.items()} | SHAPES
table = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
both = pytest.mark.parametrize("rounding", [False, True], ids=["exact", "rounding partials"])


@table
@both
def test_forward_equals_the_twin_and_touches_nothing_else(case: Case, rounding: bool) -> None:
    x = cases.tensors(case)
    before = cases.carried(case, x, fresh=not rounding)
    found, expected = cases.same_state(before, torch.float32), cases.same_state(before, torch.float64)
    kernel(rounding).forward(x.q, cases.block(case, x), found)
    exact = cases.doubled(x)
    ReferenceKernel().forward(exact.q, cases.block(case, exact), expected)
    finished, truth = found.finish(), expected.finish()
    for name, of_found, of_truth in zip(("o", "lse"), finished, truth, strict=True):
        cases.assert_close(name, of_found[:, :, x.live], of_truth[:, :, x.live], case)
    for name in ("acc", "m", "l"):
        after = getattr(found, name)[:, :, ~x.live]
        assert torch.equal(after, getattr(before, name)[:, :, ~x.live]), f"{name}: rows in no run changed"


@table
@both
def test_backward_equals_the_twin_and_touches_nothing_else(case: Case, rounding: bool) -> None:
    x = cases.tensors(case)
    saved, exact_saved = cases.saved_for(case, x)
    before, found = cases.gradients(case, x), cases.gradients(case, x)
    expected = Gradients(*(t.double() for t in (before.dq, before.dk, before.dv)))
    kernel(rounding).backward(saved, cases.block(case, x), found)
    ReferenceKernel().backward(exact_saved, cases.block(case, cases.doubled(x)), expected)
    for name, filled in (("dq", x.live), ("dk", x.seen), ("dv", x.seen)):
        after = getattr(found, name)
        cases.assert_close(name, after[:, :, filled], getattr(expected, name)[:, :, filled], case)
        outside = after[:, :, ~filled], getattr(before, name)[:, :, ~filled]
        assert torch.equal(*outside), f"{name}: wrote outside the runs"


CROSSING = (Run(0, 40, 0, 70, 0, 0), Run(50, 100, 30, 110, 0, 0))
INSIDE = (Run(0, 40, 0, 100, 0, 0), Run(40, 60, 10, 20, 0, 0), Run(60, 100, 90, 101, 0, 0))


@pytest.mark.parametrize(
    "runs, least, rounding, apart, calls, rest",
    [
        ((RECTANGLE, SECOND), 1, False, False, 2, ()),
        ((STAIR,), 1, False, False, 0, (STAIR,)),  # two calls, whose sum would be rounded
        ((STAIR,), 1, True, False, 2, ()),
        ((STAIR,), 20, True, False, 0, (STAIR,)),  # the rectangle has 19 keys
        ((SQUARE,), 101, False, False, 0, (SQUARE,)),
        ((FIRST, BAND), 1, True, False, 1, (BAND,)),
        (CROSSING, 1, False, False, 2, ()),  # each row is in one run
        (CROSSING, 1, False, True, 0, CROSSING),  # but keys 30 .. 70 are in both
        (CROSSING, 1, True, True, 2, ()),
        (INSIDE, 1, False, True, 0, INSIDE),
        ((FIRST, SECOND), 1, False, True, 2, ()),
        ((), 1, False, True, 0, ()),
    ],
)
def test_a_run_is_the_librarys_only_where_nothing_rounded_is_summed(
    runs: tuple[Run, ...], least: int, rounding: bool, apart: bool, calls: int, rest: tuple[Run, ...]
) -> None:
    found, left = divide(runs, least, rounding, apart)
    assert (len(found), left) == (calls, rest)
    assert sum(call.rows.size * call.keys.size for call in found if not call.causal) + sum(
        call.rows.size * (call.rows.size + 1) // 2 for call in found if call.causal
    ) == sum(run.pairs for run in runs if run not in rest)


def test_what_the_library_cannot_compute_goes_to_the_fallback_whole() -> None:
    case = Case((SQUARE,))
    x = cases.tensors(case)
    refusing = {"cpu": replace(ON_CPU["cpu"], why_not=lambda *_: "not here")}
    capped = replace(cases.block(case, x), softcap=20.0)
    for backends, block in ((refusing, cases.block(case, x)), (ON_CPU, capped)):
        fallback = Listening()
        LibraryKernel("cpu", fallback, least=1, backends=backends).forward(x.q, block, Carry.empty(x.q))
        assert fallback.runs == [(SQUARE,)]


def test_backward_leaves_keys_that_two_runs_read_to_the_fallback_unless_rounding_is_accepted() -> None:
    case = Case(CROSSING)
    x = cases.tensors(case)
    saved, _ = cases.saved_for(case, x)
    for rounding, left in ((False, [CROSSING]), (True, [])):
        fallback = Listening()
        kernel(rounding, fallback).backward(saved, cases.block(case, x), cases.gradients(case, x))
        assert fallback.runs == left


def test_without_a_gpu_the_real_backends_leave_all_to_the_fallback() -> None:
    case = Case((SQUARE,), dtype=torch.bfloat16)
    x = cases.tensors(case)
    for name in BACKENDS:
        fallback = Listening()
        LibraryKernel(name, fallback, least=1).forward(x.q, cases.block(case, x), Carry.empty(x.q))
        assert fallback.runs == [(SQUARE,)]


def test_a_second_block_for_the_same_rows_fails_unless_rounding_is_accepted() -> None:
    case = Case((RECTANGLE,))
    x = cases.tensors(case)
    carry = Carry.empty(x.q)
    kernel().forward(x.q, cases.block(case, x), carry)
    with pytest.raises(RuntimeError, match="rounding_partials=True"):
        kernel().forward(x.q, cases.block(case, x), carry)
    kernel(rounding=True).forward(x.q, cases.block(case, x), carry)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="'fa9' is not one of cudnn, flash"):
        LibraryKernel("fa9", Listening())


def worst_error(steps: int, rounding: bool) -> float:
    """Of o in bf16, relative to the largest, of 512 keys that come in so many blocks."""
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 512, 32, generator=draw).bfloat16() for _ in range(3))
    carry, truth = Carry.empty(q), Carry.empty(q.double())
    own = kernel(rounding=True) if rounding else CpuFlashKernel()
    for k_part, v_part in zip(k.chunk(steps, 2), v.chunk(steps, 2), strict=True):
        runs = (Run(0, 512, 0, 512 // steps, 0, 0),)
        own.forward(q, Block(k_part, v_part, runs, 32**-0.5), carry)
        ReferenceKernel().forward(q.double(), Block(k_part.double(), v_part.double(), runs, 32**-0.5), truth)
    o, expected = carry.finish()[0], truth.finish()[0]
    return float((o - expected).abs().max() / expected.abs().max())


def test_rounded_partials_cost_what_is_written_and_more_than_exact_ones() -> None:
    exact = [worst_error(steps, rounding=False) for steps in (1, 8)]
    rounded = worst_error(8, rounding=True)
    assert max(exact) < 2e-6
    assert 1e-3 < rounded < 4e-3


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("rows, keys, causal", [(256, 256, True), (128, 384, False)])
def test_torchs_ops_take_these_arguments_and_give_these_shapes(name: str, rows: int, keys: int, causal: bool) -> None:
    """On the meta device: torch checks signature and shapes, and computes nothing."""
    q, do = (torch.empty(2, 8, rows, 64, device="meta", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.empty(2, 2, keys, 64, device="meta", dtype=torch.bfloat16) for _ in range(2))
    piece = Piece(q, k, v, causal, 0.125)
    o, lse = BACKENDS[name].forward(piece)
    assert (o.shape, o.dtype, lse.shape, lse.dtype) == (q.shape, q.dtype, q.shape[:3], torch.float32)
    found = BACKENDS[name].backward(piece, Done(o, do, lse))
    assert [t.shape for t in found] == [q.shape, k.shape, v.shape]


class Heard(TorchDispatchMode):
    """The arguments of each attention op by the names of its schema."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "attention" in func.name():
            names = [argument.name for argument in func._schema.arguments]
            self.calls.append(dict(zip(names, args, strict=False)) | (kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", BACKENDS)
def test_each_tensor_is_the_argument_of_its_name(name: str) -> None:
    """Shapes cannot tell k from v or o from do."""
    q, k, v, o, do = (torch.empty(1, 2, 256, 64, device="meta", dtype=torch.bfloat16) for _ in range(5))
    piece, lse = Piece(q, k, v, True, 0.125), torch.empty(1, 2, 256, device="meta")
    with Heard() as heard:
        BACKENDS[name].forward(piece)
        BACKENDS[name].backward(piece, Done(o, do, lse))
    forward, backward = heard.calls
    for called, expected in (
        (forward, {"query": q, "key": k, "value": v}),
        (backward, {"grad_out": do, "query": q, "key": k, "value": v, "out": o}),
    ):
        assert all(called[argument] is tensor for argument, tensor in expected.items())
        assert (called["is_causal"], called["scale"], called.get("dropout_p")) == (True, 0.125, 0.0)
    assert (backward["max_q"], backward["max_k"]) == (256, 256)
    assert backward["logsumexp"].shape == LSE_SHAPES[name]


LSE_SHAPES = {"cudnn": (1, 2, 256, 1), "flash": (1, 2, 256)}


@pytest.mark.parametrize(
    "name, device, dtype, sizes, reason",
    [
        ("cudnn", CPU, torch.bfloat16, (64, 64), "not on cpu"),
        ("flash", CPU, torch.bfloat16, (64, 64), "not on cpu"),
        ("cudnn", CUDA, torch.float32, (64, 64), "computes bf16 and fp16, not torch.float32"),
        ("flash", CUDA, torch.bfloat16, (192, 128), "not 192 and 128"),
        ("flash", CUDA, torch.bfloat16, (20, 20), "multiple of 8"),
    ],
)
def test_the_reason_why_not_is_said(
    name: str, device: torch.device, dtype: torch.dtype, sizes: tuple[int, int], reason: str
) -> None:
    assert reason in str(BACKENDS[name].why_not(device, dtype, *sizes))


def test_on_the_cpu_none_is_available() -> None:
    assert available(CPU, torch.bfloat16, 64, 64) == ()


def test_deterministic_algorithms_leave_the_libraries_out() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert available(CUDA, torch.bfloat16, 64, 64) == ()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_torch_without_the_ops_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_torch_has_no", lambda op: True)
    assert available(CUDA, torch.bfloat16, 64, 64) == ()
    assert "has no cuDNN attention" in str(BACKENDS["cudnn"].why_not(CUDA, torch.bfloat16, 64, 64))


def test_an_op_that_does_not_exist_is_seen() -> None:
    assert library._torch_has_no("_scaled_dot_product_abacus_attention")
    assert not library._torch_has_no("_scaled_dot_product_cudnn_attention")


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, q: Tensor, block: Block, carry: Carry) -> None: ...

    def backward(self, saved: Saved, block: Block, gradients: Gradients) -> None: ...


@pytest.mark.parametrize(
    "seconds, winner",
    [
        ({"own": 2.0, "cudnn": 1.0, "flash": 3.0}, "cudnn"),
        ({"own": 1.0, "cudnn": 1.0}, "own"),  # of equals the earlier
        ({"own": 9.0}, "own"),
    ],
)
def test_the_fastest_wins(seconds: dict[str, float], winner: str) -> None:
    assert fastest([Named(name) for name in seconds], lambda k: seconds[k.name]).name == winner


def test_a_candidate_that_fails_is_left_out_with_a_warning_but_the_first_must_run() -> None:
    def timer(candidate: Named) -> float:
        if candidate.name == "cudnn":
            raise RuntimeError("no execution plans")
        return 1.0

    with pytest.warns(RuntimeWarning, match="cudnn is left out: no execution plans"):
        assert fastest([Named("own"), Named("cudnn")], timer).name == "own"
    with pytest.raises(RuntimeError, match="no execution plans"):
        fastest([Named("cudnn"), Named("own")], timer)


SHAPE = Shape(1, 4, 2, 96, 96, 16, 16, causal=True)


@pytest.mark.parametrize("shape", [SHAPE, replace(SHAPE, keys=40, causal=False)])
def test_timing_runs_the_kernel_and_draws_no_numbers_of_the_trainings(shape: Shape) -> None:
    state = torch.get_rng_state()
    fallback = Listening()
    found = seconds_of(fallback, shape, CPU, torch.float32)
    assert found > 0
    assert math.isfinite(found)
    assert set(fallback.runs) == {(shape.run,)}
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shape_is_measured_on_few_tokens() -> None:
    q, k = torch.empty(1, 8, 300_000, 64, device="meta"), torch.empty(1, 2, 300_000, 64, device="meta")
    shape = Shape.of(q, k, k, causal=True)
    assert shape.cut() == Shape(1, 8, 2, 8192, 8192, 64, 64, causal=True)


@pytest.mark.parametrize(
    "whole, there, chosen",
    [
        (SHAPE, ("cudnn", "flash"), "flash, triton"),
        (SHAPE, ("cudnn",), "triton"),
        (SHAPE, (), "triton"),
        (None, ("cudnn", "flash"), "triton"),  # a ring of several steps
    ],
)
def test_on_a_gpu_the_choice_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, whole: Shape | None, there: tuple[str, ...], chosen: str
) -> None:
    seconds = {"triton": 2.0, "cudnn, triton": 3.0, "flash, triton": 1.0}
    timed: list[str] = []

    def fake(candidate: Named, *_: object) -> float:
        timed.append(candidate.name)
        return seconds[candidate.name]

    monkeypatch.setattr(library, "available", lambda *_: there)
    monkeypatch.setattr(kernels, "seconds_of", fake)
    kernels._measured.cache_clear()
    try:
        assert [choose(CUDA, torch.bfloat16, whole).name for _ in range(2)] == [chosen] * 2
    finally:
        kernels._measured.cache_clear()
    assert timed == (["triton", *(f"{name}, triton" for name in there)] if whole and there else [])


@pytest.mark.parametrize("whole", [SHAPE, None])
def test_deterministic_algorithms_get_the_tiles_of_the_table(
    monkeypatch: pytest.MonkeyPatch, whole: Shape | None
) -> None:
    monkeypatch.setattr(library, "available", lambda *_: ())
    found = {}
    for asked in (False, True):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda asked=asked: asked)
        found[asked] = choose(CUDA, torch.bfloat16, whole)
    assert {asked: getattr(kernel, "tune", None) for asked, kernel in found.items()} == {False: True, True: False}


def test_on_the_cpu_and_in_fp64_a_whole_block_changes_nothing() -> None:
    assert choose(CPU, torch.float32, SHAPE).name == "cpu-flash"
    assert choose(CUDA, torch.float64, SHAPE).name == "reference"
