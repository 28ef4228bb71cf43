"""A proxy between the operator and the API server that counts requests and makes trouble: errors, storms, partitions.

In: a kubeconfig. Out: another one, of the proxy, with the same user. It speaks plain HTTP on the loopback; answers,
watches among them, are passed on as they come. It runs in a thread of its own; call its methods from any other.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from clusterkit.ports import free_ports

_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


class Proxy:
    """`requests`: how many there were, but for those of the lease, which go by the clock."""

    def __init__(self, kubeconfig: Path, target: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._server, self._authority = cluster["server"], cluster["certificate-authority-data"]
        (self.port,) = free_ports(1)
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        self.kubeconfig = target
        target.touch(mode=0o600)
        target.write_text(yaml.safe_dump(document))
        self.requests = 0
        self.failures = 0
        self._partitioned = False
        self._storm: tuple[tuple[int, ...], float, random.Random] | None = None
        self._at: tuple[int, Callable[[], None]] | None = None
        self._open: dict[int, web.Request] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def at_request(self, number: int, act: Callable[[], None]) -> None:
        """Call `act` when that request (from 1) arrives; it is passed on nevertheless."""
        self._at = (number, act)

    def partition(self, on: bool) -> None:
        """Nothing passes, and what is open is cut."""
        self._partitioned = on
        if on:
            self._loop.call_soon_threadsafe(self._cut)

    def storm(self, codes: tuple[int, ...], share: float, seed: int = 0) -> None:
        """From now on that share of the requests is answered by one of the codes and goes no further."""
        self._storm = (codes, share, random.Random(seed))

    def calm(self) -> None:
        self._storm = None

    async def _start(self) -> None:
        context = ssl.create_default_context(cadata=base64.b64decode(self._authority).decode())
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=2**20)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _stop(self) -> None:
        self._cut()
        await self._session.close()
        await self._runner.cleanup()

    def _cut(self) -> None:
        for request in list(self._open.values()):
            _abort(request)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if "/leases" not in request.path:
            self.requests += 1
            if self._at and self.requests == self._at[0]:
                self._at[1]()
            if self._storm and self._storm[2].random() < self._storm[1]:
                self.failures += 1
                return _trouble(self._storm[2].choice(self._storm[0]))
        if self._partitioned:
            _abort(request)
            return web.Response(status=502)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        body = await request.read()
        try:
            async with self._session.request(
                request.method,
                f"{self._server}{request.path_qs}",
                headers=headers,
                data=body or None,
                timeout=aiohttp.ClientTimeout(None),
            ) as answer:
                return await self._stream(request, answer)
        except (aiohttp.ClientError, ConnectionResetError):
            _abort(request)
            return web.Response(status=502)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        for key, value in answer.headers.items():
            if key.lower() not in _HOP or key.lower() == "content-encoding":
                response.headers[key] = value
        await response.prepare(request)
        self._open[id(request)] = request
        try:
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
        finally:
            self._open.pop(id(request), None)
        return response


def _abort(request: web.Request) -> None:
    """Cut the connection: a half-sent answer must not look as if it were merely slow."""
    if request.transport is not None:
        request.transport.abort()


def _trouble(code: int) -> web.Response:
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "code": code, "message": "a fault of the test"}
    return web.json_response(status, status=code, headers={"Retry-After": "1"} if code == 429 else {})
