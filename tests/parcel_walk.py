"""Follow every token through the steps of all ranks, as transports would carry it, without a tensor.

A message is a range of one owner's tokens. What is taken must have been put by the peer in the same exchange, in the
same order, of the same source and range; what is put must be there. Gradient sums are followed as counts: of each
token, how often each rank's share is in it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ring_worker.attention.layout import Range
from ring_worker.attention.needs import Asked
from ring_worker.attention.ranges import tokens
from ring_worker.attention.route import Route
from ring_worker.attention.schedule import Exchange, Moving, Parcels, Returns, Schedule, schedule

Counts = npt.NDArray[np.int64]


def plans_of(asked: Asked, inner: int, moving: Moving = "keys") -> list[Schedule]:
    route = Route(asked.layout.ranks, inner)
    return [schedule(asked, rank, route, moving) for rank in range(asked.layout.ranks)]


@dataclass
class Mail:
    """Messages on one channel, between each two ranks in order. `crossing` counts tokens from one rank to another."""

    boxes: dict[tuple[int, int], deque[tuple[int, Range, Counts]]] = field(default_factory=lambda: defaultdict(deque))
    crossing: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))

    def put(self, rank: int, parcels: Parcels, source: int, content: Counts) -> None:
        for parcel in parcels:
            assert parcel.peer != rank, "a rank sends to itself"
            for r in parcel.ranges:
                self.boxes[rank, parcel.peer].append((source, r, content[:, r.start : r.stop].copy()))
                self.crossing[rank, parcel.peer] += r.size

    def take(self, rank: int, parcels: Parcels, source: int) -> list[tuple[Range, Counts]]:
        taken = []
        for parcel in parcels:
            for r in parcel.ranges:
                sent_source, sent, content = self.boxes[parcel.peer, rank].popleft()
                assert (sent_source, sent) == (source, r)
                taken.append((r, content))
        return taken

    def empty(self) -> bool:
        return not any(self.boxes.values())


class Walk:
    """All ranks' schedules, step by step. `own` at the end: of each rank's tokens, whose shares have come home."""

    def __init__(self, plans: list[Schedule], sizes: list[int]) -> None:
        self.plans, self.sizes, self.ranks = plans, sizes, range(len(plans))
        self.keys, self.outer_keys, self.sums, self.outer_sums = Mail(), Mail(), Mail(), Mail()
        self.held = [self._all(rank) for rank in self.ranks]
        self.own = [self._none(rank) for rank in self.ranks]
        self.sum: list[tuple[int, Counts] | None] = [None for _ in self.ranks]
        self.coming: dict[int, Counts] = {}

    def run(self) -> None:
        assert len({len(plan.steps) for plan in self.plans}) == 1
        for index in range(len(self.plans[0].steps)):
            self._post(index)
            self._wait(index)
        for rank in self.ranks:
            self._send_sums(self.sums, rank, self.plans[rank].home)
        for rank in self.ranks:
            self._take_home(self.sums, rank, self.plans[rank].home)
        assert all(mail.empty() for mail in (self.keys, self.outer_keys, self.sums, self.outer_sums))

    def _post(self, index: int) -> None:
        for rank in self.ranks:
            step = self.plans[rank].steps[index]
            self._send(self.keys, rank, index, step.next)
            self._send(self.outer_keys, rank, index, step.round)
            self._send_sums(self.sums, rank, step.sums)
            self._send_sums(self.outer_sums, rank, step.round_sums)
            self._compute(rank, index)

    def _send(self, mail: Mail, rank: int, index: int, exchange: Exchange) -> None:
        met = self.plans[rank].steps[index].source
        for parcel in exchange.held:
            assert met != rank, "own tokens are sent as own"
            assert all(self.held[rank][:, r.start : r.stop].all() for r in parcel.ranges), "sends what it does not hold"
        mail.put(rank, exchange.held, met, self.held[rank])
        mail.put(rank, exchange.own, rank, self._all(rank))

    def _compute(self, rank: int, index: int) -> None:
        """Reads only what is here, and adds this rank's share to the gradient sum of what it reads."""
        step = self.plans[rank].steps[index]
        if step.source != rank and step.read:
            self.sum[rank] = (step.source, self._none(step.source))
        for r in step.read:
            assert self.held[rank][:, r.start : r.stop].all(), "reads what has not arrived"
            target = self.own[rank] if step.source == rank else self._sum_of(rank, step.source)
            target[rank, r.start : r.stop] += 1

    def _send_sums(self, mail: Mail, rank: int, returns: Returns) -> None:
        for parcels in (returns.passed, returns.home):
            if parcels:
                assert self.sum[rank] is not None
                mail.put(rank, parcels, *self.sum[rank])

    def _wait(self, index: int) -> None:
        for rank in self.ranks:
            step = self.plans[rank].steps[index]
            for r, content in self.sums.take(rank, step.sums.arriving, step.source):
                self._sum_of(rank, step.source)[:, r.start : r.stop] += content
            self._take_home(self.sums, rank, step.sums)
            self._take_home(self.outer_sums, rank, step.round_sums)
            if step.starts_round:
                self.coming[rank] = self._receive(self.outer_keys, rank, index, step.round, self._next_round(index))
            arrived = self._receive(self.keys, rank, index, step.next, index + 1)
            self.held[rank] = self.coming[rank] if step.ends_round else arrived
        assert all(mail.empty() for mail in (self.keys, self.sums))

    def _next_round(self, index: int) -> int:
        starts = [i for i, step in enumerate(self.plans[0].steps) if step.starts_round and i > index]
        return starts[0] if starts else len(self.plans[0].steps)

    def _receive(self, mail: Mail, rank: int, index: int, exchange: Exchange, when: int) -> Counts:
        """Every token that is read in step `when`, once, and no other."""
        if when >= len(self.plans[rank].steps):
            assert not exchange.received
            return self._none(rank)
        coming = self.plans[rank].steps[when]
        got = self._none(coming.source)
        for r, _ in mail.take(rank, exchange.received, coming.source):
            got[:, r.start : r.stop] += 1
        if exchange.received:
            assert got[0].sum() == tokens(coming.read)
            assert all(got[:, a:b].all() for a, b in coming.read)
        return got

    def _take_home(self, mail: Mail, rank: int, returns: Returns) -> None:
        for r, content in mail.take(rank, returns.returning, rank):
            self.own[rank][:, r.start : r.stop] += content

    def _sum_of(self, rank: int, source: int) -> Counts:
        held = self.sum[rank]
        assert held is not None
        assert held[0] == source
        return held[1]

    def _none(self, source: int) -> Counts:
        return np.zeros((len(self.plans), self.sizes[source]), dtype=np.int64)

    def _all(self, source: int) -> Counts:
        return self._none(source) + 1
