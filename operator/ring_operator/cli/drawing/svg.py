"""A picture as SVG text: nested boxes of domains, a cell for each node, a legend. No scripts, no fonts from afar.

The same input gives the same text. Everything that comes from labels and names is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape

from ring_operator.cli.drawing.boxes import HEADER, PAD, Box, Cell, Picture
from ring_operator.cli.drawing.states import State, Word
from ring_operator.topology import Topology

MARGIN, TITLE, LEGEND = 16.0, 34.0, 26.0
_LEAST_WIDTH = 560.0
_LETTER = 6.8  # how wide one is, at most on the average, in a header
_BOXES = ("#eef2f7", "#ffffff", "#f3f6fa", "#ffffff")
_COLOURS = {
    Word.FREE: ("#b7e4c7", "#2d6a4f"),
    Word.PARTLY: ("#ffe8a3", "#8a6d00"),
    Word.BUSY: ("#f4b6ae", "#9b2c1f"),
    Word.CLOSED: ("#d5d9de", "#6b7480"),
    Word.NO_GPUS: ("#ffffff", "#aab2bd"),
}


def draw(topology: Topology, picture: Picture, states: Mapping[str, State], title: str, over: str = "") -> str:
    """`over`: SVG elements drawn last, in the picture's own coordinates. `states`: by node."""
    width = max(picture.width + 2 * MARGIN, _LEAST_WIDTH, min(len(title), 100) * 9.5 + 2 * MARGIN)
    height = picture.height + 2 * MARGIN + TITLE + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="#ffffff"/>',
        _text(MARGIN, MARGIN + 14, title, (width - 2 * MARGIN) / 9.5, 'font-size="15" font-weight="600"'),
        f'<g transform="translate({_n(MARGIN)} {_n(MARGIN + TITLE)})">',
        *(_box(box, topology) for box in picture.boxes),
        *(_cell(name, cell, states.get(name)) for name, cell in picture.cells.items()),
        over,
        "</g>",
        *_legend(states, MARGIN, height - MARGIN),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _box(box: Box, topology: Topology) -> str:
    """Its header says level and name, where these fit; pointing at it says all."""
    domain = box.domain
    level = topology.levels[domain.level].name
    said = f"{level}: not labelled" if domain.unknown else f"{level} {domain.label}"
    fits = len(said) * _LETTER <= box.width - 2 * PAD
    short = said if fits else said.removeprefix(f"{level} ").removeprefix(f"{level}: ")
    dashed = ' stroke-dasharray="5 4"' if domain.unknown else ""
    count = len(domain.sites)
    header = _text(PAD, HEADER - 6, short, (box.width - 1.5 * PAD) / _LETTER, 'fill="#3d4754" font-size="11"')
    return (
        f'<g transform="translate({_n(box.x)} {_n(box.y)})"><title>{safe(said)}: {count:,} node'
        f'{"" if count == 1 else "s"}</title><rect width="{_n(box.width)}" height="{_n(box.height)}" rx="5" '
        f'fill="{_BOXES[domain.level % len(_BOXES)]}" stroke="#9aa5b1"{dashed}/>{header}</g>'
    )


def _cell(name: str, cell: Cell, state: State | None) -> str:
    fill, stroke = _COLOURS[state.word] if state else ("#ffffff", "#aab2bd")
    lines = [name, _said(state)]
    tip = escape(": ".join(_clean(line) for line in (lines[0], _tip(state)) if line), quote=False)
    words = ""
    if cell.named:
        room, first = (cell.width - 10) / 6.4, cell.height / 2 - (3 if cell.height > 40 and lines[1] else -4)
        words = _text(5, first, lines[0], room, 'fill="#1f2933"')
        if cell.height > 40 and lines[1]:
            words += _text(5, first + 15, lines[1], room + 3, f'fill="{stroke}" font-size="10"')
    return (
        f'<g transform="translate({_n(cell.x)} {_n(cell.y)})"><title>{tip}</title><rect width="{_n(cell.width)}" '
        f'height="{_n(cell.height)}" rx="{3 if cell.named else 2}" fill="{fill}" stroke="{stroke}"/>{words}</g>'
    )


def _said(state: State | None) -> str:
    """The second line of a cell."""
    if state is None:
        return ""
    return state.said or (f"{state.gpus} GPUs free" if state.gpus else "")


def _tip(state: State | None) -> str:
    if state is None:
        return ""
    return ", ".join(part for part in (str(state.word), _said(state), state.kind) if part)


def _legend(states: Mapping[str, State], x: float, y: float) -> Iterator[str]:
    """Colours that occur, with how many nodes have them."""
    counts = Counter(state.word for state in states.values())
    for word in Word:
        if counts[word]:
            fill, stroke = _COLOURS[word]
            said = f"{counts[word]:,} {word}"
            yield f'<rect x="{_n(x)}" y="{_n(y - 11)}" width="12" height="12" rx="2" fill="{fill}" stroke="{stroke}"/>'
            yield _text(x + 18, y, said, 40, 'fill="#3d4754"')
            x += 40 + len(said) * 6.6


def _text(x: float, y: float, words: str, room: float, style: str) -> str:
    """Cut to `room` characters, from the middle, since ends tell more."""
    words, most = _clean(words), max(1, int(room))
    if len(words) > most:
        head = (most - 1) // 2
        tail = most - 1 - head
        words = f"{words[:head]}…{words[-tail:] if tail else ''}"
    return f'<text x="{_n(x)}" y="{_n(y)}" {style}>{escape(words, quote=False)}</text>'


def safe(words: str) -> str:
    """As text of an element."""
    return escape(_clean(words), quote=False)


def _clean(words: str) -> str:
    """Without characters that XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in words)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
