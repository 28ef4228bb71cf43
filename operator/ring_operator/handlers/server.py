"""`/healthz`, `/readyz` and `/metrics` on one port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from ring_operator.handlers.metrics import CONTENT_TYPE


async def serve(
    port: int, alive: Callable[[], str], ready: Callable[[], str], metrics: Callable[[], bytes]
) -> web.AppRunner:
    """`alive` and `ready` say what is wrong, or nothing. Raises OSError where the port cannot be had."""
    app = web.Application()
    app.router.add_get("/healthz", _probe(alive))
    app.router.add_get("/readyz", _probe(ready))

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/metrics", numbers)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


def _probe(wrong: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        said = wrong()
        return web.Response(text=f"{said or 'ok'}\n", status=503 if said else 200)

    return answer
