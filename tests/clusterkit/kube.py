"""An asynchronous client of the API server that speaks plain JSON, for what must be fast or watch.

In: a kubeconfig. Out: `request` for one answer, `follow` for a collection as it changes, through any break of the
connection. Errors are `KubeError`, with the status code.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config

Manifest = dict[str, Any]
RETRY_SECONDS = 0.2
WATCH_SECONDS = 300
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class KubeError(Exception):
    """The API server refused; `status` is the HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kube:
    """`connections`: requests that are under way at the same time."""

    def __init__(self, kubeconfig: Path, connections: int = 50) -> None:
        self._kubeconfig = kubeconfig
        self._connections = connections

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        await config.load_kube_config(str(self._kubeconfig), client_configuration=settings)
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        token = await settings.get_api_key_with_prefix("BearerToken")
        self._server = settings.host
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=context),
            headers={"Authorization": token} if token else {},
            timeout=aiohttp.ClientTimeout(total=WATCH_SECONDS + 60, connect=10),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Manifest:
        """`kind`: content type of the body. Raises KubeError, or aiohttp.ClientError where there is no answer."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind}
        async with self._session.request(
            method, self._server + path, data=data, headers=headers, params=query or {}
        ) as answer:
            document: Manifest = await answer.json(content_type=None)
            if answer.status >= 400:
                raise KubeError(answer.status, document.get("message", ""))
            return document

    async def follow(self, path: str, **query: str) -> AsyncIterator[tuple[str, Manifest]]:
        """(`ADDED` | `MODIFIED` | `DELETED`, object) for ever; first, and after a break, (`LISTED`, the whole list)."""
        while True:
            try:
                listed = await self.request("GET", path, query=query)
                yield "LISTED", listed
                async for event in self._watch(path, listed["metadata"]["resourceVersion"], query):
                    yield event
            except (KubeError, aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, path: str, version: str, query: Mapping[str, str]) -> AsyncIterator[tuple[str, Manifest]]:
        """Ends where the server ends it. Lines may be longer than the reader's limit, so they are put together here."""
        params = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        rest = b""
        async with self._session.get(self._server + path, params=params) as answer:
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise KubeError(int(event["object"].get("code", 0)), str(event["object"].get("message")))
                    yield event["type"], event["object"]
