"""One replica of the operator: everything started, watched and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from ring_operator import names
from ring_operator.cluster import paths
from ring_operator.cluster.agents import Agents
from ring_operator.cluster.api import Api, ApiError
from ring_operator.cluster.informer import PAGE, SILENCE_SECONDS
from ring_operator.cluster.lease import Lease, LeaseName
from ring_operator.cluster.stores import Stores
from ring_operator.handlers.controller import Controller, Parts
from ring_operator.handlers.doorways import registry_for, settings_of
from ring_operator.handlers.metrics import Metrics
from ring_operator.handlers.poll import poll
from ring_operator.handlers.server import serve

log = logging.getLogger(__name__)

RESYNC_SECONDS = 45.0
WORKERS = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespaces` empty: all. `port` of probes and metrics."""

    worker_image: str
    namespaces: tuple[str, ...]
    port: int
    lease: LeaseName


class Operator:
    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._metrics = Metrics()
        self._reader = Api(configuration)  # the lease has a connection of its own, past the check for leadership
        self._lease = Lease(self._reader, settings.lease)
        self._api = Api(configuration, may_write=lambda: self._lease.leading)
        self._agents = Agents()
        self._stores = Stores(self._api, settings.namespaces, self._due)
        parts = Parts(self._api, self._agents, self._stores, self._metrics, settings.worker_image)
        self._controller = Controller(parts, configuration)
        self._resynced = 0.0

    def stop(self) -> None:
        """From a signal handler."""
        self._stop.set()

    async def run(self) -> int:
        """Until a stop is asked or the lease is lost. The exit code."""
        server = await serve(self._settings.port, self._alive, self._ready, self._numbers)
        tasks = [asyncio.create_task(part) for part in self._parts()]
        try:
            stopped = asyncio.create_task(self._stop.wait())
            lost = asyncio.create_task(self._lease.lost.wait())
            await asyncio.wait([stopped, lost, *tasks], return_when=asyncio.FIRST_COMPLETED)
            return _exit_code(stopped, tasks)
        finally:
            await self._end([*tasks, stopped, lost], server)

    def _parts(self) -> Sequence[Coroutine[Any, Any, Any]]:
        return [*(informer.run() for informer in self._stores.informers), self._doors(), self._lead(), self._tidy()]

    async def _doors(self) -> None:
        """kopf stops by itself when `_stop` is set; before that it only ends by an error."""
        namespaces = self._settings.namespaces
        await kopf.operator(
            registry=registry_for(self._controller),
            settings=settings_of(SILENCE_SECONDS),
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stop,
        )

    async def _lead(self) -> None:
        """Everything that acts, once this replica may and knows what there is."""
        await self._stores.synced()
        await self._lease.acquire()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.keep())
            await self._first_list()
            self._controller.lead()
            group.create_task(self._resync())
            group.create_task(poll(self._controller, self._agents, self._stores))
            for _ in range(WORKERS):
                group.create_task(self._controller.work())

    async def _first_list(self) -> None:
        """Jobs as they are now: a status that another replica wrote a moment ago counts."""
        while True:
            try:
                return await self._list_jobs()
            except ApiError as error:
                log.warning("jobs: %s", error)
                await asyncio.sleep(1.0)

    async def _resync(self) -> None:
        """Look at every job again, and notice jobs whose deletion no event told of."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            with contextlib.suppress(ApiError):
                await self._list_jobs()
                for key in self._controller.memos:
                    self._controller.queue.add(key, 0.0)

    async def _list_jobs(self) -> None:
        found: list[dict[str, Any]] = []
        for namespace in self._settings.namespaces or (None,):
            more: dict[str, str] = {}
            while True:
                page = await self._api.get(paths.collection(names.KIND, namespace), limit=PAGE, **more)
                found += page.get("items") or ()
                if not page.get("metadata", {}).get("continue"):
                    break
                more = {"continue": page["metadata"]["continue"]}
        self._controller.saw_all(found)
        self._resynced = time.monotonic()

    def _due(self, key: tuple[str, str]) -> None:
        memo = self._controller.memos.get(key)
        if memo is not None:
            memo.alert = True
            self._controller.queue.add(key)

    async def _tidy(self) -> None:
        """Answers of pods that are gone are forgotten."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            self._agents.keep_only(
                {(p.namespace, p.name) for i in self._stores.pods for h in i.items.values() if (p := h.facts)}
            )

    def _alive(self) -> str:
        """What is wrong with this process, such that a new one might do better."""
        stale = {path: age for path, age in self._stores.staleness().items() if age > 3 * SILENCE_SECONDS}
        if stale:
            path, age = max(stale.items(), key=lambda entry: entry[1])
            return f"nothing was heard of {path} for {age:.0f} s"
        if self._lease.leading and self._resynced and time.monotonic() - self._resynced > 10 * RESYNC_SECONDS:
            return f"jobs were listed last {time.monotonic() - self._resynced:.0f} s ago"
        return ""

    def _ready(self) -> str:
        return "" if self._stores.is_synced else "the first list of all objects is not there yet"

    def _numbers(self) -> bytes:
        metrics, queue = self._metrics, self._controller.queue
        metrics.queue_depth.set(len(queue))
        metrics.queue_age.set(queue.age)
        metrics.requests.set(self._api.requests + self._reader.requests)
        metrics.leading.set(self._lease.leading)
        for path, age in self._stores.staleness().items():
            metrics.staleness.labels(path).set(age)
        states: dict[str, int] = {}
        for memo in self._controller.memos.values():
            states[memo.status.state or "New"] = states.get(memo.status.state or "New", 0) + 1
        metrics.jobs.clear()
        for state, count in states.items():
            metrics.jobs.labels(state).set(count)
        return metrics.render()

    async def _end(self, tasks: Sequence[asyncio.Task[Any]], server: Any) -> None:
        """Acts that are under way are let finish for a moment; then the lease is given back."""
        self._stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lease.release()
        await server.cleanup()
        await self._agents.close()
        await self._api.close()
        await self._reader.close()


def _exit_code(stopped: asyncio.Task[Any], tasks: Sequence[asyncio.Task[Any]]) -> int:
    for task in tasks:
        if task.done() and (error := task.exception()) is not None:
            log.error("the operator ends: %s", error, exc_info=error)
            return 1
    return 0 if stopped.done() else 1
