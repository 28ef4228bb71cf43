"""What instructions cost on each GPU generation: resident warps, and a bound on the fraction of the matrix units' peak.

The model: one trip of the inner loop on one multiprocessor, all its warps together. The matrix units need the executed
products / their rate. Everything else needs the longest of four: all instructions / 4 issue slots a cycle; fp, integer
and MUFU instructions x threads / the lanes of their units. Then

    overlapped  = useful products / rate / max(matrix, everything else)   if other warps fill every gap
    serial      = useful products / rate / (matrix + everything else)     if nothing overlaps

and a kernel runs between the two, or below: memory, latency and clocks that drop under load are not in the model. On
gfx942 an instruction of 64 threads holds one of 4 SIMDs for 4 cycles, which the lanes express; scalar instructions are
counted as integer ones there, which is too strict.

Rates in products and sums (FLOP) a cycle and multiprocessor follow from the vendors' datasheets as peak / units / boost
clock: A100 312 TFLOP/s / 108 / 1.41 GHz, H100 SXM 989 / 132 / 1.83, B200 2250 / 148 / 1.85, MI300X 1307 / 304 / 2.1 for
bf16; lanes from the CUDA C++ programming guide's table of arithmetic throughput (8.0, 9.0, 10.0) and AMD's CDNA 3 ISA
guide (quarter rate for exponentials). fp32 runs as three products of tf32 (half the rate of bf16) on NVIDIA, and on
gfx942 in the fp32 matrix units (163 TFLOP/s).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.kernel_build import Build, Compiled
from benchmarks.machine_code import Mix
from ring_worker.attention.kernels.tile_table import padded

ISSUE_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Chip:
    """A multiprocessor. Rates a cycle: `matrix` in FLOP by dtype, lanes by unit. `registers` of 32 bits."""

    threads: int
    matrix: Mapping[str, float]
    lanes: Mapping[str, int]
    registers: int
    register_step: int
    shared_bytes: int
    block_bytes: int
    reserved_bytes: int
    warps: int
    tensor_columns: int = 0


def _nvidia(matrix: int, fp: int, shared_kib: int, warps: int = 64, columns: int = 0) -> Chip:
    rates = {"bf16": matrix, "fp16": matrix, "fp32": matrix / 6}
    lanes = {"fp": fp, "integer": 64, "mufu": 16}
    block = (shared_kib - 1) * 1024
    return Chip(32, rates, lanes, 65536, 8, shared_kib * 1024, block, 1024, warps, columns)


CHIPS = {
    "sm_80": _nvidia(2048, 64, 164),
    "sm_90": _nvidia(4096, 128, 228),
    "sm_100": _nvidia(8192, 128, 228, columns=512),
    "gfx942": Chip(
        64,
        {"bf16": 2048, "fp16": 2048, "fp32": 256},
        {"fp": 64, "integer": 64, "mufu": 16},
        131072,
        8,
        65536,
        65536,
        0,
        32,
    ),
}


def products(build: Build, pad: bool = False) -> int:
    """FLOP of one trip: two a pair and dim, for each product of the kernel. `pad`: as executed, not as useful."""
    d, e = build.shape.head, build.shape.values
    if pad:
        d, e = padded(d), padded(e)
    kernel = build.kernel.removeprefix("tutorial-") if build.part.gradients == "all" else build.part.gradients
    dims = {"forward": d + e, "dq": 2 * d + e, "dkdv": 2 * d + 2 * e, "dk": 2 * d + e, "dv": d + e}[kernel]
    return 2 * build.tile.block_q * build.tile.block_k * dims


def resident_warps(build: Build, costs: Compiled) -> int:
    """Warps that a multiprocessor holds: what registers, shared and tensor memory leave room for."""
    chip, warps = CHIPS[build.target], build.tile.warps
    each = -(-max(costs.registers, 1) // chip.register_step) * chip.register_step * chip.threads * warps
    programs = [chip.registers // each, chip.warps // warps]
    programs.append(chip.shared_bytes // max(costs.shared + chip.reserved_bytes, 1))
    if costs.tensor_memory:
        programs.append(chip.tensor_columns // costs.tensor_memory)
    return min(programs) * warps


def bounds(build: Build, mix: Mix) -> tuple[float, float]:
    """(overlapped, serial) fractions of the matrix units' peak."""
    chip, warps = CHIPS[build.target], build.tile.warps
    rate = chip.matrix[build.dtype]
    slots = sum(mix.kinds.values()) * warps / ISSUE_SLOTS
    units = [mix.kinds[kind] * warps * chip.threads / lanes for kind, lanes in chip.lanes.items()]
    rest, matrix, useful = max(slots, *units), products(build, pad=True) / rate, products(build) / rate
    return useful / max(matrix, rest), useful / (matrix + rest)


def others_per_product(build: Build, mix: Mix) -> float:
    """Instructions x threads that are no matrix instructions, for 1000 useful FLOP."""
    return mix.others * build.tile.warps * CHIPS[build.target].threads * 1000 / products(build)
