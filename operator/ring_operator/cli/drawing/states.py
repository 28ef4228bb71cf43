"""Nodes and what is on them -> a word for each, for whoever looks at the cluster and not for one job.

A taint that keeps off pods without GPUs (its key is the resource's name) is none for training jobs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ring_operator.topology import Ask, Node, Toleration, Usage
from ring_operator.topology.free import GPU, taken_by, unfit
from ring_operator.topology.quantity import UNIT

_ANY_JOB = Ask(tolerations=(Toleration(GPU, "Exists"),))


class Word(enum.StrEnum):
    FREE = "free"  # all its GPUs, or all of it where the cluster has none
    PARTLY = "partly used"
    BUSY = "busy"
    CLOSED = "closed"
    NO_GPUS = "without GPUs"


@dataclass(frozen=True, slots=True)
class State:
    """`why`: of a closed node. `free`, `gpus`: GPUs that nobody asked for yet, and all there are."""

    word: Word
    gpus: int = 0
    free: int = 0
    why: str = ""
    kind: str = ""

    @property
    def said(self) -> str:
        """In a few words; empty for a node of which there is nothing to say."""
        if self.word is Word.CLOSED:
            return self.why
        return f"{self.free} of {self.gpus} GPUs free" if self.word in (Word.PARTLY, Word.BUSY) else ""


def states_of(nodes: Sequence[Node], usages: Iterable[Usage]) -> dict[str, State]:
    taken = taken_by(usages)
    has_gpus = any(node.gpus for node in nodes)
    return {node.name: _state(node, taken.get(node.name, {}), has_gpus) for node in nodes}


def _state(node: Node, taken: Mapping[str, int], has_gpus: bool) -> State:
    free = max(0, node.allocatable.get(GPU, 0) - taken.get(GPU, 0)) // UNIT
    reason = unfit(node, _ANY_JOB)
    if reason is not None:
        return State(Word.CLOSED, node.gpus, 0, reason.of(1), node.kind)
    return State(_word(node.gpus, free, has_gpus), node.gpus, free, kind=node.kind)


def _word(gpus: int, free: int, has_gpus: bool) -> Word:
    if not gpus:
        return Word.NO_GPUS if has_gpus else Word.FREE
    return Word.FREE if free == gpus else Word.PARTLY if free else Word.BUSY
