"""The HTTP side of the fake agents: one server on all addresses, which asks by the local address what to answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Page:
    content_type: str
    body: str
    status: HTTPStatus = HTTPStatus.OK


Answer = Callable[[str, str], Page | None]


class Silence(Exception):  # noqa: N818 - it is not an error
    """Raised by an `Answer`: the connection stays open, and nothing is ever said."""


class AgentServer:
    """`answer(address, path)`: None for "nobody is there", which hangs up."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._conversations: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> None:
        """Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._connected, "0.0.0.0", port, backlog=4096)

    async def close(self) -> None:
        self._server.close()
        for conversation in list(self._conversations):
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other until the client, or the answer, ends it."""
        address = str(writer.get_extra_info("sockname")[0])
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            try:
                page = self._answer(address, head.split(" ", 2)[1])
            except Silence:
                await asyncio.Event().wait()  # until the server is closed
                return
            if page is None:
                return
            writer.write(_response(page))
            await writer.drain()


def _response(page: Page) -> bytes:
    data = page.body.encode()
    lines = [f"HTTP/1.1 {page.status.value} {page.status.phrase}", f"Content-Type: {page.content_type}"]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data
