"""A copy of a collection, kept up to date: LIST in pages, WATCH with bookmarks, LIST again after a break.

What a LIST no longer holds was deleted meanwhile, and is told as a deletion: no event ever comes for it. Objects are
turned into facts at once, so that thousands of them stay small; what makes no facts is not kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ring_operator.cluster.api import Api, ApiError, GoneError

log = logging.getLogger(__name__)

PAGE = 500
WATCH_SECONDS = 290
SILENCE_SECONDS = 100.0  # the API server sends a bookmark about once a minute
_BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Key = tuple[str, str]  # namespace, name


class Told(Protocol[T_contra]):
    """Called with what was before and what is now; None: not there."""

    def __call__(self, before: T_contra | None, now: T_contra | None) -> None: ...


class Informer(Generic[T]):
    """`facts`: object -> what is kept, or None. `told`: called for every change, while the loop runs."""

    def __init__(self, api: Api, path: str, facts: Callable[[dict[str, Any]], T | None], told: Told[T], **query: str):
        self._api, self.path, self._facts, self._told, self._query = api, path, facts, told, query
        self.items: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self.heard = 0.0  # time.monotonic of the last word from the server
        self.relists = 0

    async def run(self) -> None:
        """For ever. Every error is waited out; staleness shows in `heard`."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                while True:
                    version = await self._watch(version)
            except GoneError:
                continue
            except ApiError as error:
                log.warning("%s: %s", self.path, error)
                wait = error.retry_after or _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
                failures += 1
                await asyncio.sleep(wait)

    async def _list(self) -> str:
        found: dict[Key, T] = {}
        more: dict[str, str] = {}
        while True:
            page = await self._api.get(self.path, limit=PAGE, **self._query, **more)
            self.heard = time.monotonic()
            for raw in page.get("items") or ():
                if (facts := self._facts(raw)) is not None:
                    found[_key(raw)] = facts
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                break
            more = {"continue": metadata["continue"]}
        self.relists += 1
        self._take(found)
        self.synced.set()
        return str(metadata.get("resourceVersion", ""))

    def _take(self, found: dict[Key, T]) -> None:
        before, self.items = self.items, found
        for key in before.keys() | found.keys():
            if before.get(key) != found.get(key):
                self._told(before.get(key), found.get(key))

    async def _watch(self, version: str) -> str:
        """Until the stream ends. The version to go on from. Raises Gone where it is too old."""
        query = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": WATCH_SECONDS}
        async for event in self._api.watch(self.path, SILENCE_SECONDS, **query, **self._query):
            self.heard = time.monotonic()
            raw = event.get("object") or {}
            if event.get("type") == "ERROR":
                raise GoneError(int(raw.get("code") or 410), f"watch of {self.path}: {raw.get('message', '')}")
            version = raw.get("metadata", {}).get("resourceVersion", version)
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                self._change(_key(raw), None if event["type"] == "DELETED" else self._facts(raw))
        return version

    def _change(self, key: Key, now: T | None) -> None:
        before = self.items.pop(key, None)
        if now is not None:
            self.items[key] = now
        if before != now:
            self._told(before, now)


def _key(raw: dict[str, Any]) -> Key:
    metadata = raw.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
