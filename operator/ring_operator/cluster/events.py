"""Events of jobs: few, and the same one is counted instead of told again."""

from __future__ import annotations

import datetime
import hashlib
from collections import OrderedDict
from typing import Any

from ring_operator import names
from ring_operator.cluster import paths
from ring_operator.cluster.api import Api, GoneError
from ring_operator.reconcile.view import Identity, Tell

_REMEMBERED = 4096
MESSAGE_MAX = 1024


class Events:
    """An event's name follows from what it says, so that a restarted operator finds it, too."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def tell(self, job: Identity, said: Tell) -> None:
        message = said.message if len(said.message) <= MESSAGE_MAX else said.message[: MESSAGE_MAX - 3] + "..."
        digest = hashlib.sha256(f"{job.uid}\0{said.reason}\0{message}".encode()).hexdigest()[:16]
        name = f"{job.name}.{digest}"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        count = self._counts.pop(name, 0) + 1
        path = paths.one("Event", job.namespace, name)
        if count == 1 and (known := await self._known(path)):
            count = known + 1
        body = _body(job, Tell(said.type, said.reason, message), name)
        if count > 1:
            await self._api.merge(path, {"count": count, "lastTimestamp": now})
        else:
            await self._api.create(
                paths.collection("Event", job.namespace),
                {**body, "count": 1, "firstTimestamp": now, "lastTimestamp": now},
            )
        self._counts[name] = count
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    async def _known(self, path: str) -> int:
        try:
            return int((await self._api.get(path)).get("count") or 1)
        except GoneError:
            return 0


def _body(job: Identity, said: Tell, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": job.name,
            "namespace": job.namespace,
            "uid": job.uid,
        },
        "type": said.type,
        "reason": said.reason,
        "message": said.message,
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
    }
