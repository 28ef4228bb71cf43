"""Carry out what `reconcile` asks for, in its order; what is alike and next to each other goes out at the same time."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ring_operator import names
from ring_operator.cluster import paths
from ring_operator.cluster.agents import Agents
from ring_operator.cluster.api import Api, ApiError, ConflictError, GoneError
from ring_operator.cluster.events import Events
from ring_operator.observe.pods import PodFacts
from ring_operator.reconcile.view import (
    Act,
    Apply,
    CollectStacks,
    Create,
    Delete,
    DeleteJob,
    Identity,
    Pin,
    Publish,
    Remove,
    Stamp,
    Tell,
)
from ring_operator.render import pinned
from ring_operator.status.document import JobStatus

log = logging.getLogger(__name__)

AT_ONCE = 64
_STACKS_BYTES = 900_000  # a ConfigMap holds one MiB


@dataclass(frozen=True, slots=True)
class Work:
    """One job's acts. `published`: called as soon as a rank table is there for the pods."""

    job: Identity
    pods: Mapping[str, PodFacts]
    published: Callable[[Publish], None]


class Actor:
    def __init__(self, api: Api, agents: Agents) -> None:
        self._api, self._agents, self._events = api, agents, Events(api)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def write_status(self, job: Identity, status: JobStatus) -> None:
        """Of this very object: a namesake that came after it is left alone. Raises Gone or Conflict then."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": job.name, "namespace": job.namespace, "uid": job.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        await self._api.apply(paths.one(names.KIND, job.namespace, job.name) + "/status", body)

    async def carry_out(self, acts: Sequence[Act], work: Work) -> None:
        """Raises the first ApiError after the acts beside it have ended; those after it are not begun."""
        for _, alike in itertools.groupby(acts, key=type):
            results = await asyncio.gather(*(self._one(act, work) for act in alike), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _one(self, act: Act, work: Work) -> None:
        async with self._slots:
            await _HOW[type(act)](self, act, work)

    async def _apply(self, act: Apply, work: Work) -> None:
        await self._api.apply(paths.of(act.manifest, work.job.namespace), act.manifest)

    async def _remove(self, act: Remove, work: Work) -> None:
        try:
            await self._api.delete(paths.one(act.kind, work.job.namespace, act.name), {})
        except GoneError as error:
            log.debug("%s", error)

    async def _publish(self, act: Publish, work: Work) -> None:
        await self._api.apply(paths.of(act.manifest, work.job.namespace), act.manifest)
        work.published(act)

    async def _create(self, act: Create, work: Work) -> None:
        try:
            await self._api.create(paths.collection("Pod", work.job.namespace), act.manifest)
        except ConflictError:
            await self._check_namesake(act, work)

    async def _check_namesake(self, act: Create, work: Work) -> None:
        """It was created a moment ago and is not seen yet, or it is another's: that must not be passed over."""
        name = act.manifest["metadata"]["name"]
        try:
            there = (await self._api.get(paths.one("Pod", work.job.namespace, name)))["metadata"]
        except GoneError:
            return
        owners = {owner.get("uid") for owner in there.get("ownerReferences") or ()}
        if work.job.uid not in owners and not there.get("deletionTimestamp"):
            raise ConflictError(409, f"pod {name} exists and is not of this job; delete it, or name the job otherwise")

    async def _pin(self, act: Pin, work: Work) -> None:
        try:
            await self._api.merge(paths.one("Pod", work.job.namespace, act.name), pinned(act.node, act.now))
        except GoneError as error:
            log.debug("%s", error)

    async def _delete(self, act: Delete, work: Work) -> None:
        body: dict[str, Any] = {"preconditions": {"uid": act.uid}}
        if act.grace is not None:
            body["gracePeriodSeconds"] = act.grace
        try:
            await self._api.delete(paths.one("Pod", work.job.namespace, act.name), body)
        except (GoneError, ConflictError) as error:
            log.debug("%s", error)

    async def _stamp(self, act: Stamp, work: Work) -> None:
        body = {"metadata": {"annotations": {names.ANNOTATION_EPOCH: str(act.epoch)}}}
        try:
            await self._api.merge(paths.one("Pod", work.job.namespace, act.name), body)
        except GoneError as error:
            log.debug("%s", error)

    async def _collect_stacks(self, act: CollectStacks, work: Work) -> None:
        """Kept in a ConfigMap of the job until the next hang. That they cannot be had must not delay the restart."""
        texts = await self._agents.stacks(work.pods[name] for name in act.pods if name in work.pods)
        manifest = {**act.manifest, "data": _fitting(texts, act.epoch)}
        try:
            await self._api.apply(paths.of(manifest, work.job.namespace), manifest)
            await self._events.tell(work.job, Tell("Warning", "Stacks", _where_they_are(work.job.name, texts)))
        except ApiError as error:
            log.warning("stacks of %s/%s: %s", *work.job.key, error)

    async def _tell(self, act: Tell, work: Work) -> None:
        """An event that cannot be told is no reason not to act."""
        try:
            await self._events.tell(work.job, act)
        except ApiError as error:
            log.warning("event %s of %s/%s: %s", act.reason, *work.job.key, error)

    async def _delete_job(self, act: DeleteJob, work: Work) -> None:
        body = {"preconditions": {"uid": work.job.uid}, "propagationPolicy": "Background"}
        await self._api.delete(paths.one(names.KIND, work.job.namespace, work.job.name), body)


_HOW: dict[type, Callable[[Actor, Any, Work], Awaitable[None]]] = {
    Apply: Actor._apply,
    Remove: Actor._remove,
    Publish: Actor._publish,
    Create: Actor._create,
    Pin: Actor._pin,
    Delete: Actor._delete,
    Stamp: Actor._stamp,
    CollectStacks: Actor._collect_stacks,
    Tell: Actor._tell,
    DeleteJob: Actor._delete_job,
}


def _fitting(texts: Mapping[str, str], epoch: int) -> dict[str, str]:
    """Cut evenly to what a ConfigMap holds."""
    each = _STACKS_BYTES // max(1, len(texts))
    cut = {pod: text.encode()[: each - 200].decode("utf-8", "ignore") for pod, text in texts.items()}
    return {"epoch": json.dumps(epoch), **cut}


def _where_they_are(job: str, texts: Mapping[str, str]) -> str:
    """With the innermost frame that most ranks share, which often says it all."""
    frames = [line.strip() for text in texts.values() for line in text.splitlines() if line.strip().startswith("File ")]
    common = max(set(frames), key=frames.count, default="")
    where = f"ConfigMap {names.stacks_map(job)} holds what every rank was doing"
    return f"{where}; most often: {common}" if common else where
