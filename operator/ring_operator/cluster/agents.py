"""What the agents of the pods say of themselves, asked over HTTP at their pods' addresses.

An agent that does not answer is silent since the first question that it left unanswered: whoever was not asked is not
silent. Nothing that an agent says is trusted further than its form.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from ring_operator import names
from ring_operator.observe.pods import PodFacts
from ring_operator.reconcile.view import Answer
from ring_worker.contract import AgentStatus, ContractError

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.5
STACKS_SECONDS = 12.0
AT_ONCE = 128
MOST_BYTES = 1 << 20


@dataclass(slots=True)
class _Heard:
    uid: str
    status: AgentStatus | None = None
    silent_since: float | None = None


class Agents:
    """Answers by (namespace, pod)."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True), trust_env=False
        )
        self._heard: dict[tuple[str, str], _Heard] = {}
        self.questions = 0

    async def close(self) -> None:
        await self._session.close()

    def answers(self, pods: Iterable[PodFacts]) -> dict[str, Answer]:
        """What the agents of these pods said last, by pod."""
        now = time.monotonic()
        found = ((pod, self._heard.get((pod.namespace, pod.name))) for pod in pods)
        return {
            pod.name: Answer(heard.status, now - heard.silent_since if heard.silent_since is not None else 0.0)
            for pod, heard in found
            if heard is not None and heard.uid == pod.uid
        }

    def keep_only(self, pods: set[tuple[str, str]]) -> None:
        """Forget what was said by pods that are gone."""
        self._heard = {key: heard for key, heard in self._heard.items() if key in pods}

    async def ask(self, pods: Iterable[PodFacts]) -> bool:
        """Ask all of them at once. Whether any said something new that is worth a look."""
        asked = [pod for pod in pods if pod.address and pod.agent_started and not pod.ended]
        changed = await asyncio.gather(*(self._ask(pod) for pod in asked))
        return any(changed)

    async def _ask(self, pod: PodFacts) -> bool:
        key = (pod.namespace, pod.name)
        heard = self._heard.get(key)
        if heard is None or heard.uid != pod.uid:
            heard = self._heard[key] = _Heard(pod.uid)
        status = await self._status(pod)
        if status is None:
            first = heard.silent_since is None
            heard.silent_since = time.monotonic() if first else heard.silent_since
            return first
        before, heard.status = heard.status, status
        was_silent, heard.silent_since = heard.silent_since is not None, None
        return was_silent or before is None or _news(before, status)

    async def _status(self, pod: PodFacts) -> AgentStatus | None:
        self.questions += 1
        text = await self._get(pod, "/status", ANSWER_SECONDS)
        if text is None:
            return None
        try:
            status = AgentStatus.from_json(text)
        except (ContractError, RecursionError) as error:
            log.warning("agent of %s/%s: %s", pod.namespace, pod.name, error)
            return None
        return status if (status.pod, status.job_uid) == (pod.name, pod.job_uid) else None

    async def stacks(self, pods: Iterable[PodFacts]) -> dict[str, str]:
        """What every rank of these pods is doing, by pod."""
        asked = [pod for pod in pods if pod.address and pod.agent_started]
        texts = await asyncio.gather(*(self._get(pod, "/stacks", STACKS_SECONDS) for pod in asked))
        return {pod.name: text or "the agent does not answer\n" for pod, text in zip(asked, texts, strict=True)}

    async def _get(self, pod: PodFacts, path: str, seconds: float) -> str | None:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        url = f"http://{host}:{names.STATUS_PORT}{path}"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(seconds), allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                return (await answer.content.read(MOST_BYTES)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


def _news(before: AgentStatus, now: AgentStatus) -> bool:
    """Other than that the training goes on."""
    return _gist(before) != _gist(now)


def _gist(status: AgentStatus) -> tuple[str, int, bool, int | None]:
    return status.state, status.epoch, status.step >= 0, status.failed_rank
