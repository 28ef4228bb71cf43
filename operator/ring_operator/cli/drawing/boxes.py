"""The tree of domains -> where each domain's box and each node's cell is, in pixels.

Pure and deterministic. Domains are nested boxes; what is in a box is laid in rows that keep it somewhat wider than
high. Cells shrink as nodes grow many: with names for a few dozen, plain squares for hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ring_operator.topology import Topology
from ring_operator.topology.domains import Domain, domains_of

PAD, HEADER = 8, 20
_WIDE = 1.6  # how much wider than high a box is to be


@dataclass(frozen=True, slots=True)
class Cell:
    """A node's rectangle. `named`: whether there is room for its name."""

    x: float
    y: float
    width: float
    height: float
    named: bool

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Box:
    """A domain's rectangle, its header above its content included."""

    x: float
    y: float
    width: float
    height: float
    domain: Domain


@dataclass(frozen=True, slots=True)
class Picture:
    """`boxes`: wider ones before those inside them. `cells`: of every node, by its name."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    cells: Mapping[str, Cell]


@dataclass(slots=True)
class _Block:
    """Something of a size with things at places inside it. `domain`: whose box it is, if it is one."""

    width: float
    height: float
    domain: Domain | None = None
    name: str = ""
    inside: list[tuple[float, float, _Block]] = field(default_factory=list)


def lay_out(topology: Topology) -> Picture:
    """At the origin; whoever draws a margin moves it."""
    named, size, gap = _cell_size(len(topology.sites))
    block = _block(domains_of(topology), size, gap)
    boxes: list[Box] = []
    cells: dict[str, Cell] = {}
    waiting = [(0.0, 0.0, block)]
    while waiting:
        x, y, each = waiting.pop()
        if each.name:
            cells[each.name] = Cell(x, y, each.width, each.height, named)
        if each.domain is not None:
            boxes.append(Box(x, y, each.width, each.height, each.domain))
        waiting += [(x + dx, y + dy, inner) for dx, dy, inner in reversed(each.inside)]
    return Picture(block.width, block.height, tuple(boxes), cells)


def _cell_size(nodes: int) -> tuple[bool, tuple[float, float], float]:
    """Whether names fit; width and height; the space between two."""
    for most, width, height, gap in ((24, 132.0, 44.0, 8.0), (96, 84.0, 30.0, 6.0)):
        if nodes <= most:
            return True, (width, height), gap
    side = 18.0 if nodes <= 1024 else 10.0
    return False, (side, side), 4.0 if nodes <= 1024 else 2.0


def _block(domain: Domain, size: tuple[float, float], gap: float) -> _Block:
    """Domains inside first, then nodes of no domain of theirs, which have no box."""
    parts = [_block(part, size, gap) for part in domain.parts]
    if not parts:
        parts = [_Block(*size, name=site.name) for site in domain.sites]
    packed = _packed(parts, gap if not domain.parts else PAD)
    if domain.level < 0 or (domain.alone and not domain.unknown):
        return packed
    width = max(packed.width + 2 * PAD, 104.0 if domain.unknown else 64.0)
    inner = [(x + PAD, y + HEADER, block) for x, y, block in packed.inside]
    return _Block(width, packed.height + HEADER + PAD, domain, inside=inner)


def _packed(parts: Sequence[_Block], gap: float) -> _Block:
    """In rows, in order: as many in a row as give the whole the wanted shape and leave little of it empty."""
    if not parts:
        return _Block(0.0, 0.0)
    area = sum(part.width * part.height for part in parts)
    choices = (_in_rows(parts, gap, count) for count in _counts(len(parts)))
    return min(choices, key=lambda block: _clumsiness(block, area))


def _counts(parts: int) -> range:
    """Numbers of parts in a row that are worth a try."""
    if parts <= 40:
        return range(1, parts + 1)
    square = math.isqrt(parts)
    return range(square // 2, 3 * square)


def _clumsiness(block: _Block, area: float) -> float:
    empty = 1.0 - area / (block.width * block.height)
    return abs(math.log(block.width / block.height / _WIDE)) + 2.0 * empty


def _in_rows(parts: Sequence[_Block], gap: float, count: int) -> _Block:
    placed = _Block(0.0, 0.0)
    y = 0.0
    for first in range(0, len(parts), count):
        x, row = 0.0, parts[first : first + count]
        for part in row:
            placed.inside.append((x, y, part))
            x += part.width + gap
        height = max(part.height for part in row)
        placed.width, placed.height = max(placed.width, x - gap), y + height
        y += height + gap
    return placed
