"""Rings over the picture of the network: one closed line each, through its nodes in ring order."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence

from ring_operator.cli.drawing.boxes import Picture
from ring_operator.cli.drawing.svg import safe

_GOLDEN = 0.618033988749895  # neighbours in number get colours far apart


def rings_over(picture: Picture, rings: Sequence[Sequence[str]]) -> str:
    """SVG elements for `draw(over=...)`. A ring of one node is a dot; the first node of each has a larger one."""
    return "\n".join(line for number, ring in enumerate(rings) for line in _ring(picture, number, ring))


def _ring(picture: Picture, number: int, ring: Sequence[str]) -> Iterator[str]:
    points = [picture.cells[name].centre for name in ring if name in picture.cells]
    if not points:
        return
    shift = (number % 5 - 2) * 1.5  # lines of several rings through one place stay apart
    points = [(x + shift, y + shift) for x, y in points]
    colour = _colour(number)
    tip = f"<title>ring {number}: {safe(' > '.join(ring))}</title>"
    if len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield (
            f'<polygon points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round" '
            f'stroke-opacity="0.85">{tip}</polygon>'
        )
    for i, (x, y) in enumerate(points):
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if i == 0 else 2.5}" fill="{colour}">{tip}</circle>'


def _colour(number: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN % 1.0, 0.42, 0.75)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
