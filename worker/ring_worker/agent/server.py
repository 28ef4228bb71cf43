"""`GET /status` (JSON) and `GET /metrics` (Prometheus text), on one port, in threads that never touch the ranks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ring_worker.contract import ContractError
from ring_worker.telemetry.exporter import CONTENT_TYPE


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`, `:port` (all addresses) or `[v6]:port`. Raises ContractError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ContractError(f"RING_STATUS_ADDRESS: {text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def serve(address: tuple[str, int], status: Callable[[], str], metrics: Callable[[], bytes]) -> None:
    """Serve in the background until the process ends. Raises OSError where the address cannot be had."""
    pages = {
        "/status": ("application/json", lambda: status().encode()),
        "/metrics": (CONTENT_TYPE, metrics),
    }
    server = _server_class(address[0])(address, _handler(pages))
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server


def _handler(pages: dict[str, tuple[str, Callable[[], bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds for a silent client

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(404, "there are /status and /metrics")
                return
            body = page[1]()
            self.send_response(200)
            self.send_header("Content-Type", page[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
            """A look every second is not worth a line."""

    return Handler
