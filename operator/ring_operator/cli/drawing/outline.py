"""The network for people: levels and their labels, then the tree, with what is many told in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from ring_operator.cli.drawing.states import State, Word
from ring_operator.cli.drawing.tally import count, headline, numbers, of_sites
from ring_operator.cli.view.summary import printable
from ring_operator.topology import Site, Topology
from ring_operator.topology.domains import Domain, domains_of

_PARTS, _NODES = 12, 8  # of one domain that are shown
_NAMES = 6
_SMALL = 64  # nodes of a cluster of which every one is shown
_STYLES = {Word.PARTLY: "yellow", Word.BUSY: "red", Word.CLOSED: "dim", Word.NO_GPUS: "dim"}


def outline(topology: Topology, states: Mapping[str, State], notes: Sequence[str], full: bool) -> Iterator[Text]:
    """`full`: nothing is left out."""
    root = domains_of(topology)
    yield Text(headline(states), "bold")
    words = Counter(state.word for state in states.values())
    yield Text("  " + ", ".join(f"{words[word]:,} {word}" for word in Word if words[word]))
    yield from _levels(topology, root)
    for note in (*_unknown(root), *notes):
        yield Text.assemble(("  note  ", "yellow"), printable(note))
    yield Text()
    yield from _Outline(topology, states, full).lines(root, "")


def _levels(topology: Topology, root: Domain) -> Iterator[Text]:
    if not topology.levels:
        yield Text("  one flat network: no node has a label that says where it is")
        return
    yield Text("  levels, widest first", "dim")
    domains = Counter(domain.level for domain in root.walk() if not domain.alone)
    wide = max(len(level.name) for level in topology.levels)
    for number, level in enumerate(topology.levels):
        found = count(domains[number], "domain")
        keys = printable(", ".join(level.keys))
        yield Text.assemble(f"    {printable(level.name):<{wide}}  {found:<13}", (keys, "dim"))


def _unknown(root: Domain) -> Iterator[str]:
    """Nodes whose place is not known, by what they lack."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for site in root.sites:
        if site.unknown:
            lacking.setdefault(site.unknown, []).append(site.name)
    for levels, names in lacking.items():
        some = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else "")
        have, count_as = ("has", "counts") if len(names) == 1 else ("have", "count")
        what = f"{have} no label for {' and '.join(levels)} and {count_as} as far from all others"
        yield f"{count(len(names), 'node')} {what}: {some}"


class _Outline:
    """Draws the tree. What a domain has too much of is told in a line."""

    def __init__(self, topology: Topology, states: Mapping[str, State], full: bool) -> None:
        self._levels = [level.name for level in topology.levels]
        self._states = states
        self._full = full
        self._every_node = full or len(topology.sites) <= _SMALL

    def lines(self, domain: Domain, margin: str) -> Iterator[Text]:
        """What is inside."""
        rows: list[Domain | Site] = list(domain.parts)
        if len(rows) == 1 and isinstance(rows[0], Domain) and rows[0].alone and not rows[0].unknown:
            rows = []  # nobody shares anything on this level: no line for it
        most = _PARTS if rows else _NODES
        if not rows and domain.level >= 0 and not self._every_node:
            return
        rows = rows or list(domain.sites)
        shown = rows if self._full or len(rows) <= most + 1 else rows[:most]
        rest = rows[len(shown) :]
        for i, row in enumerate(shown):
            last = i == len(shown) - 1 and not rest
            yield Text.assemble((f"{margin}{'└─' if last else '├─'} ", "dim"), self._row(row))
            if isinstance(row, Domain):
                yield from self.lines(row, margin + ("   " if last else "│  "))
        if rest:
            yield Text.assemble((f"{margin}└─ ", "dim"), (self._rest(rest), "dim"))

    def _row(self, row: Domain | Site) -> Text:
        if isinstance(row, Domain):
            title = self._title(row)
            found = of_sites(row.sites, self._states)
            rest = [f"{found.words[word]:,} {word}" for word in Word if word is not Word.FREE and found.words[word]]
            in_words = "" if self._every_node else "".join(f", {part}" for part in rest)
            return Text.assemble((printable(title), "bold"), f": {numbers(found)}", (in_words, "dim"))
        state = self._states[row.name]
        said = f"  {printable(state.said)}" if state.said else ""
        return Text.assemble(printable(row.name), (said, _STYLES.get(state.word, "")))

    def _title(self, domain: Domain) -> str:
        level = self._levels[domain.level]
        if domain.alone:
            return f"{level} not labelled" if domain.unknown else f"no {level}"
        return f"{level} {domain.label}"

    def _rest(self, rows: Sequence[Domain | Site]) -> str:
        sites = [site for row in rows for site in (row.sites if isinstance(row, Domain) else (row,))]
        found = numbers(of_sites(sites, self._states))
        if isinstance(rows[0], Domain):
            return f"and {count(len(rows), self._levels[rows[0].level])} more: {found}"
        return f"and {found.replace(' node', ' more node', 1)}"
