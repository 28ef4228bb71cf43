"""Compile the Triton kernels for GPUs that are not there: ours, and the tutorial's that they are compared with.

A `Build` says what is compiled, `compiled` gives its machine code and what it takes. Kernels are compiled as the
launcher calls them with contiguous tensors: addresses and strides divisible by 16. Never under TRITON_INTERPRET. Triton
keeps what it has compiled, so a second time is quick.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ring_worker.attention.kernels.tile_table import WHOLE, Part, Shape, Tile

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
ELEMENTS = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
INPUTS = ("q", "k", "v", "do")
ONE_PER_ROW = ("m", "l", "lse", "delta")
DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Build:
    """A kernel, for whom, and with which tile. `kernel`: forward, dq, dkdv, or one of `tutorial_flash`."""

    kernel: str
    target: str
    shape: Shape
    dtype: str
    tile: Tile
    capped: bool = False
    part: Part = WHOLE

    def __str__(self) -> str:
        return f"{self.kernel}-{self.target}-{self.shape}-{self.dtype}{'-softcap' if self.capped else ''}{self.part}"


@dataclass(frozen=True)
class Compiled:
    """Machine code and what it takes: bytes of shared memory, registers a thread, bytes of local memory, spills."""

    text: str
    shared: int
    tensor_memory: int
    registers: int
    local: int
    spills: int


def compiled(build: Build) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget

    from ring_worker.attention.kernels.triton_launch import options

    target = GPUTarget(*TARGETS[build.target])
    built = triton.compile(_source(build), target=target, options=options(build.tile))
    columns = getattr(built.metadata, "tmem_size", None) or 0
    if "amdgcn" in built.asm:
        text = built.asm["amdgcn"]
        return Compiled(text, built.metadata.shared, 0, *_gcn_costs(text))
    machine = _Cubin(built.asm["cubin"])
    return Compiled(machine.text, built.metadata.shared, columns, *machine.costs)


class _Cubin:
    """Read by the tools in Triton's wheel."""

    def __init__(self, cubin: bytes) -> None:
        self.cubin = cubin

    @cached_property
    def text(self) -> str:
        return self._ask("nvdisasm", "-c")

    @property
    def costs(self) -> tuple[int, int, int]:
        usage = self._ask("cuobjdump", "-res-usage")
        number = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
        spills = len(re.findall(r"\b(?:STL|LDL)\b", self.text))
        return number["REG"], number["STACK"] + number["LOCAL"], spills

    def _ask(self, tool: str, option: str) -> str:
        import triton

        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            path = Path(triton.__file__).parent / "backends/nvidia/bin" / tool
            return subprocess.run([path, option, file.name], capture_output=True, text=True, check=True).stdout


def _gcn_costs(text: str) -> tuple[int, int, int]:
    number = {name: int(value) for name, value in re.findall(r"\.(\w+(?:_count|_fixed_size)):\s+(\d+)", text)}
    spills = len(re.findall(r"^\s+scratch_", text, re.MULTILINE))
    return number["vgpr_count"], number["private_segment_fixed_size"], spills


def _source(build: Build) -> Any:
    from triton.compiler import ASTSource

    kernel = _kernel(build)
    fixed = _constants(build, kernel.arg_names)
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    attributes: dict[Any, Any] = {}
    for index, name in enumerate(kernel.arg_names):
        signature[name], aligned, contiguous = _argument(name, build.dtype, name in fixed)
        attributes.update({(index, *part): DIVISIBLE for part in aligned})
        constants.update({(index, *part): 1 for part in contiguous})
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def _kernel(build: Build) -> Any:
    from benchmarks import tutorial_flash
    from ring_worker.attention.kernels.triton_launch import kernel_for

    if build.kernel.startswith("tutorial-"):
        return getattr(tutorial_flash, f"{build.kernel.removeprefix('tutorial-')}_kernel")
    return kernel_for(build.kernel, build.tile, build.part)


def _constants(build: Build, names: list[str]) -> dict[str, Any]:
    from ring_worker.attention.kernels.triton_launch import constants
    from ring_worker.attention.kernels.tuning import Work

    work = Work(build.kernel, build.shape, build.dtype, build.target, build.capped)
    return constants(work, build.tile, build.part, names)


Parts = list[tuple[int, ...]]


def _argument(name: str, dtype: str, fixed: bool) -> tuple[Any, Parts, Parts]:
    """(type, parts divisible by 16, parts that are 1) of a kernel's argument, which may be a tuple of parts."""
    from ring_worker.attention.kernels.triton_tiles import Rows, Score, Seen

    if fixed:
        return "constexpr", [], []
    if name == "seen":
        return Seen("*i32", "*i32", "*i16", "*i32", "i32", "i32"), [(part,) for part in range(4)], []
    if name == "score":
        return Score("fp32", "fp32"), [], []
    if name in ("scale", "heads", "group", "count"):
        return ("fp32" if name == "scale" else "i32"), [()] if name == "count" else [], []
    element = ELEMENTS[dtype if name in INPUTS or name == "o" else "fp32"]
    if name in ONE_PER_ROW:
        return Rows(element, "i32", "i32", "constexpr"), [(part,) for part in range(3)], [(3,)]
    return Rows(element, "i32", "i32", "i32"), [(part,) for part in range(4)], []
