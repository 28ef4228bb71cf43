"""Which replica may write: a `coordination.k8s.io` Lease, renewed well before it ends.

The holder judges by its own monotonic clock and stops writing at the renew deadline, others take the lease over only
after its whole duration without a change, by theirs: clocks that differ, or jump, do no harm. The official client's
election is not used: it compares wall clocks and sets no time limit on its requests.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from dataclasses import dataclass
from typing import Any

from ring_operator.cluster import paths
from ring_operator.cluster.api import Api, ApiError, GoneError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseName:
    namespace: str
    name: str
    holder: str


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds. `duration` > `deadline` > `retry`."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class Lease:
    """`leading` is true only while no other replica can believe that it may write."""

    def __init__(self, api: Api, name: LeaseName, pace: Pace = Pace()) -> None:
        self._api, self._name, self._pace = api, name, pace
        self._renewed = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)  # version of the lease, and when it was seen first
        self.lost = asyncio.Event()

    @property
    def leading(self) -> bool:
        return time.monotonic() - self._renewed < self._pace.deadline

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._try():
            await asyncio.sleep(self._pace.retry)
        log.info("%s leads", self._name.holder)

    async def keep(self) -> None:
        """Renew until that fails for too long."""
        while self.leading:
            await asyncio.sleep(self._pace.retry)
            await self._try()
        log.error("%s leads no more: the lease could not be renewed for %g s", self._name.holder, self._pace.deadline)
        self.lost.set()

    async def release(self) -> None:
        """Let another one take over at once."""
        if not self.leading:
            return
        try:
            raw = await self._api.get(self._path)
            if raw["spec"].get("holderIdentity") == self._name.holder:
                await self._api.replace(self._path, self._body(raw, holder=""))
        except (ApiError, KeyError, TimeoutError) as error:
            log.warning("the lease runs out by itself: %s", error)
        self._renewed = float("-inf")

    async def _try(self) -> bool:
        """Take or renew the lease. It counts from before the request: the server may have seen it as early as that."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._pace.retry * 2):
                done = await self._take_or_renew()
        except (ApiError, TimeoutError, KeyError, TypeError, ValueError) as error:
            log.warning("lease %s: %s", self._name.name, error or type(error).__name__)
            return False
        if done:
            self._renewed = asked
        return done

    async def _take_or_renew(self) -> bool:
        try:
            raw = await self._api.get(self._path)
        except GoneError:
            await self._api.create(paths.collection("Lease", self._name.namespace), self._body(None))
            return True
        if not self._may_have(raw):
            return False
        await self._api.replace(self._path, self._body(raw))
        return True

    def _may_have(self, raw: dict[str, Any]) -> bool:
        holder, version = raw["spec"].get("holderIdentity"), raw["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        if not holder or holder == self._name.holder:
            return True
        return time.monotonic() - self._seen[1] > float(raw["spec"].get("leaseDurationSeconds") or self._pace.duration)

    def _body(self, raw: dict[str, Any] | None, holder: str | None = None) -> dict[str, Any]:
        """With the version that was read, so that of two who try at once only one succeeds."""
        spec = dict((raw or {}).get("spec") or {})
        own = self._name.holder if holder is None else holder
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != own:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (raw is not None)}
        spec |= {"holderIdentity": own, "leaseDurationSeconds": int(self._pace.duration), "renewTime": now}
        version = {"resourceVersion": raw["metadata"]["resourceVersion"]} if raw else {}
        metadata = {"name": self._name.name, "namespace": self._name.namespace, **version}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    @property
    def _path(self) -> str:
        return paths.one("Lease", self._name.namespace, self._name.name)
