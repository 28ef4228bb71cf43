"""Nodes in numbers: how many are free, how many of their GPUs, of which kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ring_operator.cli.drawing.states import State, Word
from ring_operator.topology import Site


@dataclass(frozen=True, slots=True)
class Tally:
    """`words`: nodes by state. `kinds`: nodes by product of their GPUs."""

    nodes: int
    free: int
    gpus: int
    free_gpus: int
    words: Mapping[Word, int]
    kinds: Mapping[str, int]


def tally(states: Iterable[State]) -> Tally:
    found = list(states)
    words = Counter(state.word for state in found)
    kinds = Counter(state.kind for state in found if state.kind)
    gpus, free = sum(state.gpus for state in found), sum(state.free for state in found)
    return Tally(len(found), words[Word.FREE], gpus, free, words, dict(sorted(kinds.items())))


def of_sites(sites: Iterable[Site], states: Mapping[str, State]) -> Tally:
    return tally(states[site.name] for site in sites)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def numbers(found: Tally) -> str:
    """`4 nodes, 3 free, 24 of 32 GPUs free`."""
    gpus = f", {found.free_gpus:,} of {count(found.gpus, 'GPU')} free" if found.gpus else ""
    return f"{count(found.nodes, 'node')}, {found.free:,} free{gpus}"


def headline(states: Mapping[str, State]) -> str:
    """The whole cluster."""
    found = tally(states.values())
    kinds = ", ".join(f"{kind} x {number:,}" if len(found.kinds) > 1 else kind for kind, number in found.kinds.items())
    return f"{numbers(found)}: {kinds}" if kinds else numbers(found)
