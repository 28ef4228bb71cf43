"""Ask the agents, again and again: the first pod of every ring each time, all of them less often, unless trouble shows.

4,096 pods cannot all be asked every second, and need not: a rank that dies takes its ring along within a moment. What
NCCL keeps hanging instead is found by the rounds over all pods, whose pace follows from how many there are.
"""

from __future__ import annotations

import asyncio
import time

from ring_operator.cluster.agents import Agents
from ring_operator.cluster.stores import Stores
from ring_operator.handlers.controller import Controller
from ring_operator.handlers.memo import Memo
from ring_operator.handlers.queue import Key
from ring_operator.observe.pods import PodFacts

LEADERS_SECONDS = 2.0
ALL_SECONDS = 4.0
QUESTIONS_A_SECOND = 400


async def poll(controller: Controller, agents: Agents, stores: Stores) -> None:
    """For ever, while this replica leads."""
    while True:
        began = time.monotonic()
        total = sum(len(stores.pods_of(key)) for key in controller.memos)
        pace = max(ALL_SECONDS, total / QUESTIONS_A_SECOND)
        await asyncio.gather(*(_ask(controller, agents, stores, key, pace) for key in list(controller.memos)))
        await asyncio.sleep(max(0.2, LEADERS_SECONDS - (time.monotonic() - began)))


async def _ask(controller: Controller, agents: Agents, stores: Stores, key: Key, pace: float) -> None:
    memo = controller.memos.get(key)
    if memo is None or not memo.managed or memo.status.completion_time is not None:
        return
    pods = stores.pods_of(key)
    everyone = memo.alert or time.monotonic() - memo.asked_all >= pace
    news = await agents.ask(pods if everyone else _leaders(memo, pods))
    if news and not everyone and _trouble(agents, pods):
        everyone = True
        await agents.ask(pods)  # the first to be seen need not be the one that broke the others
    if everyone:
        memo.asked_all = time.monotonic()
    if news:
        controller.queue.add(key, 0.0)


def _leaders(memo: Memo, pods: tuple[PodFacts, ...]) -> list[PodFacts]:
    first = {m.pod for m in memo.table.members if m.position == 0 or m.first_rank == 0} if memo.table else set()
    return [pod for pod in pods if pod.name in first]


def _trouble(agents: Agents, pods: tuple[PodFacts, ...]) -> bool:
    answers = agents.answers(pods).values()
    return any(a.silent or (a.status is not None and a.status.state != "running") for a in answers)
