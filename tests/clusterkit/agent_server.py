"""The HTTP side of the fake agents: pages at many addresses of this machine, one for each pod that runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Page:
    content_type: str
    body: str
    status: HTTPStatus = HTTPStatus.OK


Answer = Callable[[str, str], Page | None]


class Silence(Exception):  # noqa: N818 - it is not an error
    """Raised by an `Answer`: the connection stays open, and nothing is ever said."""


class AgentServer:
    """`answer(address, path)`: None hangs up. Each address has a socket of its own, so that others are refused."""

    def __init__(self, port: int, answer: Answer) -> None:
        self._port = port
        self._answer = answer
        self._sockets: dict[str, socket.socket] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}  # to the address

    def listen(self, address: str) -> None:
        """Connections are taken from now on. Raises OSError, naming the address, where that cannot be."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, self._port))
        except OSError as error:
            listener.close()
            raise OSError(f"cannot listen on {address}:{self._port} as a pod's agent: {error.strerror}") from error
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._sockets[address] = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, address, listener)

    def leave(self, address: str) -> None:
        """From now on connections are refused, and open ones end."""
        if address in self._sockets:
            listener = self._sockets.pop(address)
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
            for task in [task for task, of in self._tasks.items() if of == address]:
                task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for address in list(self._sockets):
            self.leave(address)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, address: str, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(address, connection))
            self._tasks[task] = address
            task.add_done_callback(self._tasks.pop)

    async def _serve(self, address: str, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._converse(address, reader, writer)
        finally:
            writer.close()

    async def _converse(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other until the client, or the answer, ends it."""
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
