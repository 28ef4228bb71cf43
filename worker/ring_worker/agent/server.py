"""`GET /status` (JSON), `/metrics` (Prometheus text) and `/stacks` (plain text) on one port, in own threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ring_worker.contract import ContractError


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`, `:port` (all addresses) or `[v6]:port`. Raises ContractError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ContractError(f"RING_STATUS_ADDRESS: {text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True)
class Page:
    """`body` is called at each request, in a thread of the request."""

    content_type: str
    body: Callable[[], bytes]


def serve(address: tuple[str, int], pages: Mapping[str, Page]) -> None:
    """Serve in the background until the process ends. Raises OSError where the address cannot be had."""
    server = _server_class(address[0])(address, _handler(pages))
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server


def _handler(pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds for a silent client

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(404, f"there are {', '.join(pages)}")
                return
            body = page.body()
            self.send_response(200)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
            """A look every second is not worth a line."""

    return Handler
