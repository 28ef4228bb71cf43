"""Compile the Triton kernels for GPUs that are not there, and read in the machine code what they cost.

`python -m kernel_audit FIRST STRIDE` compiles every STRIDE-th configuration of the table from FIRST on and prints a
line of JSON for each. Never under TRITON_INTERPRET. Triton keeps what it compiled, so a second time is quick.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
WIDTHS = (16, 32, 64, 128, 256)
IN_HALF = ("q", "k", "v", "do")
ONE_PER_ROW = ("m", "l", "lse", "delta")
MATRIX = re.compile(r"\b(HGMMA|HMMA|UTC\w*MMA|v_mfma)")


@dataclass(frozen=True)
class Configuration:
    """A row of the table, as far as it is compiled for: bf16."""

    kernel: str
    target: str
    head_size: int

    def __str__(self) -> str:
        return f"{self.kernel}-{self.target}-{self.head_size}"


@dataclass(frozen=True)
class Found:
    """Bytes of shared and of local memory (stack included), registers a thread, matrix instructions by name."""

    configuration: str
    tile: str
    shared: int
    registers: int
    local: int
    spills: int
    matrix: dict[str, int]


def configurations() -> list[Configuration]:
    return [Configuration(k, t, w) for w in WIDTHS for k in ("forward", "dq", "dkdv") for t in TARGETS]


def source(configuration: Configuration, tile: Any) -> Any:
    """The kernel as the launcher calls it with contiguous tensors: addresses and strides multiples of 16."""
    from triton.compiler import ASTSource

    from ring_worker.attention.kernels import triton_backward, triton_forward
    from ring_worker.attention.kernels.tile_table import width_of

    kernels = {"forward": triton_forward.forward_kernel, "dq": triton_backward.dq_kernel}
    kernel = kernels.get(configuration.kernel, triton_backward.dkdv_kernel)
    head_size = configuration.head_size
    fixed = {"HEAD": head_size, "WIDTH": width_of(head_size), "BLOCK_Q": tile.block_q, "BLOCK_K": tile.block_k}
    signature: dict[str, Any] = dict.fromkeys(fixed, "constexpr")
    constants: dict[Any, int] = dict(fixed)
    aligned: dict[Any, Any] = {}
    for index, name in enumerate(kernel.arg_names):
        if name == "seen":
            signature[name] = triton_forward.Seen("*i32", "*i32", "*i8", "*i32", "i32", "i32")
            aligned.update({(index, part): [["tt.divisibility", 16]] for part in range(4)})
        elif name in ("scale", "heads", "group"):
            signature[name] = "fp32" if name == "scale" else "i32"
        elif name not in fixed:
            element = "*bf16" if name in IN_HALF else "*fp32"
            row = "constexpr" if name in ONE_PER_ROW else "i32"
            signature[name] = triton_forward.Rows(element, "i32", "i32", row)
            aligned.update({(index, part): [["tt.divisibility", 16]] for part in range(3 if row != "i32" else 4)})
            if row != "i32":
                constants[(index, 3)] = 1
    ordered = {name: signature[name] for name in kernel.arg_names}
    return ASTSource(fn=kernel, signature=ordered, constexprs=constants, attrs=aligned)


def audit(configuration: Configuration) -> Found:
    import triton
    from triton.backends.compiler import GPUTarget

    from ring_worker.attention.kernels.tile_table import tile_for

    tile = tile_for(configuration.kernel, configuration.head_size, 2, configuration.target)
    options = {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
    built = triton.compile(
        source(configuration, tile), target=GPUTarget(*TARGETS[configuration.target]), options=options
    )
    text, usage = (built.asm["amdgcn"],) * 2 if "amdgcn" in built.asm else machine_code(built.asm["cubin"])
    matrix = MATRIX.findall(text)
    shape = f"{tile.block_q}x{tile.block_k} warps {tile.warps} stages {tile.stages}"
    counts = {name: matrix.count(name) for name in sorted(set(matrix))}
    return Found(str(configuration), shape, built.metadata.shared, *costs(text, usage), counts)


def machine_code(cubin: bytes) -> tuple[str, str]:
    """(instructions, resource usage) by the tools in Triton's wheel."""
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = [[tools / "nvdisasm", file.name], [tools / "cuobjdump", "-res-usage", file.name]]
        text, usage = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    return text, usage


def costs(text: str, usage: str) -> tuple[int, int, int]:
    """(registers, bytes of stack and local memory, instructions that spill)."""
    if "REG:" in usage:
        number = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
        return number["REG"], number["STACK"] + number["LOCAL"], len(re.findall(r"\b(?:STL|LDL)\b", text))
    number = {name: int(value) for name, value in re.findall(r"\.(\w+(?:_count|_fixed_size)):\s+(\d+)", text)}
    return number["vgpr_count"], number["private_segment_fixed_size"], number["vgpr_spill_count"]


if __name__ == "__main__":
    first, stride = map(int, sys.argv[1:])
    for each in configurations()[first::stride]:
        print(json.dumps(asdict(audit(each))), flush=True)
