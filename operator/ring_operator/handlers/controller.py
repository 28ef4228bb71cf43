"""The one reconcile behind every doorway: build a view of one job, ask `reconcile`, write the status, have it done.

Level-triggered: an event only says which job to look at. Whatever goes wrong with one job is counted, told in its own
status, tried again later, and stops no other.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import Configuration

from ring_operator import names
from ring_operator.cluster import paths
from ring_operator.cluster.acts import Actor, Work
from ring_operator.cluster.agents import Agents
from ring_operator.cluster.api import Api, ApiError, ConflictError, GoneError, NotLeaderError
from ring_operator.cluster.stores import Stores
from ring_operator.errors import UserError
from ring_operator.handlers.memo import Memo, Planned, identity_of, is_ours, planned, status_of
from ring_operator.handlers.metrics import Metrics
from ring_operator.handlers.queue import Key, Queue
from ring_operator.observe.pods import PodFacts
from ring_operator.placement import Ground
from ring_operator.reconcile.cluster import reconcile
from ring_operator.reconcile.report import refused
from ring_operator.reconcile.view import Fresh, Outcome, Pin, Publish, Survey, View
from ring_operator.render import Slot, pod
from ring_operator.status.document import JobStatus
from ring_operator.topology import ask_of
from ring_worker.contract import ContractError, RankTable

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0  # least time between two writes that tell of progress only
WRITES_A_SECOND = 20  # of progress, over all jobs
_PORTS = (20000, 30000)


@dataclass(frozen=True)
class Parts:
    """What the controller works with."""

    api: Api
    agents: Agents
    stores: Stores
    metrics: Metrics
    image: str


class Controller:
    """`leading` false: events are taken in, nothing is done."""

    def __init__(self, parts: Parts, configuration: Configuration) -> None:
        self._parts = parts
        self.configuration = configuration
        self._actor = Actor(parts.api, parts.agents)
        self.queue = Queue()
        self.memos: dict[Key, Memo] = {}
        self.leading = False

    def saw(self, raw: Mapping[str, Any], gone: bool = False) -> None:
        """A job as it is now. Never raises for what it holds."""
        identity = identity_of(raw)
        memo = self.memos.get(identity.key)
        if gone:
            if memo is not None and memo.identity.uid == identity.uid:
                self._forget(identity.key)
            return
        if memo is None or memo.identity.uid != identity.uid:
            made = planned(raw, identity, self._parts.image)
            self.memos[identity.key] = Memo(identity, status_of(raw), made, is_ours(raw))
        elif memo.identity != identity:
            if memo.identity.generation != identity.generation:
                memo.planned, memo.managed = planned(raw, identity, self._parts.image), is_ours(raw)
            memo.identity = identity
        elif self.leading:
            return  # our own status
        if not self.leading:
            self.memos[identity.key].status = status_of(raw)
        self.queue.add(identity.key)

    def saw_all(self, raws: Iterable[Mapping[str, Any]]) -> None:
        """Every job there is: those that are not among them are gone, though nobody said so."""
        there = {identity_of(raw).key: raw for raw in raws}
        for key in self.memos.keys() - there.keys():
            self._forget(key)
        for raw in there.values():
            self.saw(raw)

    def lead(self) -> None:
        """From now on this replica acts. What another one wrote meanwhile is read anew."""
        self.leading = True
        for key, memo in self.memos.items():
            memo.table_known, memo.written = False, None
            self.queue.add(key, 0.0)

    def _forget(self, key: Key) -> None:
        if self.memos.pop(key, None) is not None:
            self.queue.forget(key)
            self._parts.metrics.forget(*key)
            if (ledger := self._parts.stores.ledger) is not None:
                ledger.forget(_in_ledger(key))

    async def work(self) -> None:
        """One worker, for ever."""
        while True:
            key = await self.queue.take()
            try:
                await self._guarded(key)
            finally:
                self.queue.done(key)

    async def _guarded(self, key: Key) -> None:
        memo, began = self.memos.get(key), time.perf_counter()
        if memo is None or not memo.managed or memo.identity.deleting or not self.leading:
            return
        result = "ok"
        try:
            again = await self._look(memo)
            self.queue.succeeded(key)
            if again is not None:
                self.queue.add(key, max(again, 0.02))
        except NotLeaderError:
            result = "not leading"
        except (GoneError, ConflictError, ApiError) as error:
            result = "api error"
            memo.problem = str(error)
            wait = self.queue.failed(key, getattr(error, "retry_after", None) or 0.0)
            log.warning("%s/%s: %s; again in %.1f s", *key, error, wait)
        except Exception:
            result = "error"
            memo.problem = "the operator failed to reconcile this job; its log says more"
            log.exception("%s/%s: again in %.1f s", *key, self.queue.failed(key))
        self._parts.metrics.reconciles.labels(result).inc()
        self._parts.metrics.seconds.observe(time.perf_counter() - began)

    async def _look(self, memo: Memo) -> float | None:
        """One look. Seconds until the next one is due."""
        if isinstance(memo.planned, UserError):
            status = refused(memo.status, memo.planned, memo.identity.generation, time.time())
            await self._write(memo, Outcome(status))
            return None
        await self._learn_table(memo)
        outcome = reconcile(self._view(memo, memo.planned))
        if (ledger := self._parts.stores.ledger) is not None:
            ledger.promise(_in_ledger(memo.identity.key), [act.node for act in outcome.acts if isinstance(act, Pin)])
        if outcome.acts or outcome.status != memo.status:
            log.debug(
                "%s/%s: %s %s", *memo.identity.key, outcome.status.state, [type(a).__name__ for a in outcome.acts]
            )
        later = await self._write(memo, outcome)
        pods = {pod.name: pod for pod in self._parts.stores.pods_of(memo.identity.key)}
        await self._actor.carry_out(outcome.acts, Work(memo.identity, pods, lambda act: _published(memo, act)))
        memo.problem = ""
        memo.alert = outcome.status.state != "Running"
        again = outcome.again
        if again and not memo.alert:
            again = max(again, self._progress_pace)  # only progress is to be seen, which news of an agent would precede
        return min((t for t in (again, later) if t is not None), default=None)

    @property
    def _progress_pace(self) -> float:
        return max(PROGRESS_SECONDS, len(self.memos) / WRITES_A_SECOND)

    def _view(self, memo: Memo, made: Planned) -> View:
        stores, key = self._parts.stores, memo.identity.key
        pods = tuple(pod for pod in stores.pods_of(key) if pod.job_uid == memo.identity.uid)
        return View(
            identity=memo.identity,
            job=made.job,
            plan=made.plan,
            place=made.place,
            wanted_children=made.children,
            status=memo.status,
            now=time.time(),
            fresh=Fresh(secrets.token_hex(16), _PORTS[0] + secrets.randbelow(_PORTS[1] - _PORTS[0])),
            pods=pods,
            agents=self._parts.agents.answers(pods),
            unready=stores.unready(pod.node for pod in pods),
            children=stores.children_of(key, memo.identity.uid),
            table=memo.table,
            published_at=memo.published_at,
            problem=memo.problem,
            ground=self._survey(memo, made, pods),
        )

    def _survey(self, memo: Memo, made: Planned, pods: tuple[PodFacts, ...]) -> Survey | None:
        """How the job sees the nodes, as they are at this moment."""
        ledger, identity = self._parts.stores.ledger, memo.identity
        if ledger is None:
            return None
        levels = made.job.spec.placement.levels

        def survey(kept: frozenset[str], avoided: frozenset[str]) -> Ground:
            leaving = {pod.node for pod in pods if pod.deleting_since}
            example = pod(made.job, made.plan, made.place, Slot(0, avoid=(*avoided, *leaving)))
            return ledger.ground(_in_ledger(identity.key), levels, ask_of(example), kept)

        return survey

    async def _learn_table(self, memo: Memo) -> None:
        """The table that an operator before this one published."""
        if memo.table_known:
            return
        path = paths.one("ConfigMap", memo.identity.namespace, names.ranks_map(memo.identity.name))
        try:
            raw = await self._parts.api.get(path)
            table = RankTable.from_json(raw.get("data", {}).get(names.RANKS_KEY, ""))
            if table.job_uid == memo.identity.uid:
                memo.table, memo.published_at = table, time.time()
        except (GoneError, ContractError):
            pass  # there is none, or none that an agent would take up
        memo.table_known = True

    async def _write(self, memo: Memo, outcome: Outcome) -> float | None:
        """The status, where it says something new; progress alone waits its turn. Seconds until that."""
        status, before = outcome.status, memo.written
        if status == before:
            memo.status = status
            return None
        left = memo.written_at + self._progress_pace - time.monotonic()
        if left > 0 and before is not None and _without_progress(status) == _without_progress(before):
            memo.status = status
            return left
        await self._actor.write_status(memo.identity, status)
        self._parts.metrics.tell(memo.identity, memo.status, status)
        memo.status = memo.written = status
        memo.written_at = time.monotonic()
        return None


def _in_ledger(key: Key) -> str:
    return "/".join(key)


def _published(memo: Memo, act: Publish) -> None:
    memo.table, memo.published_at = act.table, time.time()


def _without_progress(status: JobStatus) -> JobStatus:
    rings = tuple(r.model_copy(update={"tokens_per_second": None, "efficiency": None}) for r in status.rings)
    return status.model_copy(update={"progress": None, "rings": rings})
