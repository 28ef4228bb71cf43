"""Read machine code: the inner loop of a kernel, and what its instructions are, for NVIDIA's SASS and AMD's GCN.

In: the disassembly of one kernel. Out: for every innermost loop that holds matrix instructions, a `Mix`: how many
instructions of each kind a warp issues on one trip. A loop is a stretch of text that ends in a branch back to its
beginning. Kernels here have two such loops, over unmasked and over masked steps; the masked ones are walked in halves,
so the unmasked loop is the one that does more matrix work in a trip.

Every instruction is counted once, also where a predicate or an election lets only one warp or thread act: it takes an
issue slot all the same. Waits that spin on a barrier are counted as one turn.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KINDS = ("matrix", "mufu", "fp", "integer", "memory", "barrier")

# The first pattern that fits an opcode names its kind; what fits none is integer work (moves and jumps included).
SASS: Mapping[str, str] = {
    "matrix": r"HMMA|HGMMA|DMMA|IMMA|UTC\w*MMA",
    "mufu": r"MUFU",
    "barrier": r"BAR|WARPSYNC|WARPGROUP|DEPBAR|LDGDEPBAR|MEMBAR|FENCE|SYNCS|UTCBAR|UTCATOMSWS|ARRIVES|ERRBAR|BSYNC|BSSY"
    r"|NANOSLEEP|NOP|CCTL",
    "memory": r"LD|ST|SHFL|ATOM|RED|UBLKCP|UTMA|UTCCP|ULD|LDTM|STTM|MOVM",
    "fp": r"F(?!LO|ENCE)|HADD|HMUL|HFMA|HMNMX|HSET|D(?:ADD|MUL|FMA|SET)|I2F",
}
GCN: Mapping[str, str] = {
    "matrix": r"v_mfma",
    "mufu": r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_",
    "barrier": r"s_barrier|s_waitcnt|s_nop|s_sleep|s_setprio",
    "memory": r"global_|buffer_|flat_|scratch_|ds_|s_load|s_buffer|s_store",
    "fp": r"v_(pk_)?\w*_(f16|f32|f64|bf16)\b|v_cvt_|v_med3_f|v_cmp\w*_f",
}
SASS_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
SASS_LABEL = re.compile(r"^(\.L_x_\d+):")
SASS_TARGET = re.compile(r"`\((\.L_x_\d+)\)")
GCN_LINE = re.compile(r"^\s+([a-z][\w]*)\s*(.*)$")
GCN_LABEL = re.compile(r"^(\.LBB\w+):")
GCN_TARGET = re.compile(r"(\.LBB\w+)")


@dataclass(frozen=True, slots=True)
class Mix:
    """Instructions of one trip of a loop, by kind, and the matrix instructions by full name."""

    kinds: Mapping[str, int]
    matrix: Mapping[str, int]

    @property
    def others(self) -> int:
        """Instructions that are no matrix instructions."""
        return sum(count for kind, count in self.kinds.items() if kind != "matrix")

    @property
    def work(self) -> int:
        """Multiplications of the matrix instructions, as far as their names say a shape: 1 each where they do not."""
        return sum(count * _multiplications(name) for name, count in self.matrix.items())


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction; `label` set instead for a place that is jumped to, `target` for a jump."""

    opcode: str = ""
    label: str = ""
    target: str = ""


def inner_loop(text: str) -> Mix:
    """Of the loops with matrix instructions the one with the most work, and of equal ones the leanest."""
    found = loops(text)
    if not found:
        raise ValueError("no loop with matrix instructions in this machine code")
    return min(found, key=lambda mix: (-mix.work, mix.others))


def loops(text: str) -> list[Mix]:
    """Every innermost loop with matrix instructions, in the order of the text."""
    gcn = "s_endpgm" in text
    lines = list(_lines(text, gcn))
    places = {line.label: index for index, line in enumerate(lines) if line.label}
    spans = [
        (places[line.target], index)
        for index, line in enumerate(lines)
        if line.target in places and places[line.target] < index
    ]
    mixes = {span: _mix((line.opcode for line in lines[span[0] : span[1] + 1] if line.opcode), gcn) for span in spans}
    busy = [span for span in spans if mixes[span].kinds["matrix"]]
    inner = [s for s in busy if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in busy)]
    return [mixes[span] for span in sorted(set(inner))]


def matrix_counts(text: str) -> dict[str, int]:
    """Matrix instructions of the whole text by the first part of their name."""
    opcodes = (line.opcode for line in _lines(text, "s_endpgm" in text))
    return dict(sorted(Counter(o.split(".")[0] for o in opcodes if _is_matrix(o)).items()))


def _multiplications(name: str) -> int:
    """Of `HMMA.16816`, `HGMMA.64x128x16` or `v_mfma_f32_32x32x8_bf16`."""
    if found := re.search(r"(\d+)x(\d+)x(\d+)", name):
        return math.prod(map(int, found.groups()))
    if found := re.match(r"HMMA\.16(8)(16|8|4)\b", name):
        return 16 * int(found[1]) * int(found[2])
    return 1


def _is_matrix(opcode: str) -> bool:
    return bool(re.match(f"(?:{SASS['matrix']}|{GCN['matrix']})", opcode))


def _lines(text: str, gcn: bool) -> Iterable[Line]:
    label, line, target = (GCN_LABEL, GCN_LINE, GCN_TARGET) if gcn else (SASS_LABEL, SASS_LINE, SASS_TARGET)
    for row in text.splitlines():
        if place := label.match(row):
            yield Line(label=place[1])
        elif (found := line.match(row)) and not found[1].startswith("."):
            jump = target.search(found[2]) if found[1].startswith(("BRA", "s_cbranch", "s_branch")) else None
            yield Line(opcode=found[1], target=jump[1] if jump else "")


def _mix(opcodes: Iterable[str], gcn: bool) -> Mix:
    names = list(opcodes)
    kinds = Counter(kind_of(name, gcn) for name in names)
    return Mix({kind: kinds[kind] for kind in KINDS}, dict(Counter(n for n in names if _is_matrix(n))))


def kind_of(opcode: str, gcn: bool) -> str:
    table = GCN if gcn else SASS
    return next((kind for kind, pattern in table.items() if re.match(pattern, opcode)), "integer")
