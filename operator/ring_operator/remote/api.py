"""Plain JSON requests to the API server, over the official client's connection: its TLS, its tokens, its proxy.

One request after the other and no thread: a command asks, waits and ends. Whatever goes wrong is a `RemoteError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ring_operator.remote.breaks import broken
from ring_operator.remote.errors import UnreachableError, error_of
from ring_operator.remote.kubeconfig import Settings

Raw = dict[str, Any]
MANAGER = "ringctl"
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
WATCH_SECONDS = 50  # then the server ends the watch; when nothing comes for longer, the connection is dead
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
_PAGE = 500
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """`what`: in a few words, for its error. `silence`: seconds without a word after which it is given up."""

    method: str
    path: str
    what: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Raw | None = None
    content: str = "application/json"
    silence: float | None = ANSWER_SECONDS


class Api:
    def __init__(self, settings: Settings) -> None:
        """Raises UnreachableError where the settings cannot be used."""
        from kubernetes.client import ApiClient

        self._configuration = settings.configuration
        if not self.server.startswith(("http://", "https://")):
            message = f"the kubeconfig's server, {self.server!r}, is no address such as https://10.0.0.1:6443"
            raise UnreachableError(message, "Mend it, or name another --context.")
        with self._translated("the connection"):
            self._client = ApiClient(settings.configuration).rest_client

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    def get(self, path: str, what: str, **query: Any) -> Raw:
        return self._json(Request("GET", path, what, query))

    def list(self, path: str, what: str, **query: Any) -> Iterator[Raw]:
        """Items, page by page."""
        more: dict[str, Any] = {"limit": _PAGE}
        while more:
            page = self.get(path, what, **query, **more)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            more = {"limit": _PAGE, "continue": token} if token else {}

    def apply(self, path: str, what: str, body: Raw, force: bool = False) -> Raw:
        """Server-side apply. Fields of others are a conflict, unless they are taken by `force`."""
        query = {"fieldManager": MANAGER, "force": str(force).lower()}
        return self._json(Request("PATCH", path, what, query, body, APPLY))

    def merge(self, path: str, what: str, body: Raw) -> Raw:
        return self._json(Request("PATCH", path, what, {"fieldManager": MANAGER}, body, MERGE))

    def delete(self, path: str, what: str, body: Raw) -> Raw:
        return self._json(Request("DELETE", path, what, body=body))

    def watch(self, path: str, what: str, **query: Any) -> Iterator[Raw]:
        """Events until the server ends the stream, within WATCH_SECONDS."""
        asked = {"watch": "true", "timeoutSeconds": WATCH_SECONDS, **query}
        for line in self._lines(Request("GET", path, what, asked, silence=WATCH_SECONDS + 10)):
            try:
                yield json.loads(line)
            except ValueError:
                raise UnreachableError(f"{what}: the connection broke", again=True) from None

    def lines(self, path: str, what: str, **query: Any) -> Iterator[str]:
        """Lines of a stream as they come, however long nothing comes."""
        return self._lines(Request("GET", path, what, query, silence=None))

    def _lines(self, request: Request) -> Iterator[str]:
        with self._answer(request) as response:
            rest = b""
            for chunk in response.stream(_CHUNK, decode_content=True):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in whole)
            if rest:
                yield rest.decode("utf-8", "replace")

    def _json(self, request: Request) -> Raw:
        with self._answer(request) as response:
            data = response.data
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UnreachableError(f"{request.what}: {self.server} answers, but not as an API server does")
        return answer

    @contextmanager
    def _answer(self, request: Request) -> Iterator[Any]:
        """The response of a request that succeeded, of which nothing is read yet."""
        with self._translated(request.what):
            response = self._send(request)
            try:
                if response.status >= 400:
                    raise error_of(response.status, response.data.decode("utf-8", "replace"), request.what)
                yield response
            finally:
                response.close()

    def _send(self, request: Request) -> Any:
        headers = {"Accept": "application/json", "User-Agent": MANAGER, **self._authorization()}
        if request.body is not None:
            headers["Content-Type"] = request.content
        url = f"{self.server}{request.path}" + (f"?{urlencode(request.query)}" if request.query else "")
        limits = (CONNECT_SECONDS, request.silence)
        answer = self._client.request(request.method, url, headers=headers, body=request.body, _request_timeout=limits)
        return answer.response

    def _authorization(self) -> dict[str, str]:
        settings = self._configuration.auth_settings().values()
        return {s["key"]: s["value"] for s in settings if s["in"] == "header" and s["value"]}

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Errors of files, sockets, TLS and HTTP as one that a person can read."""
        from kubernetes.client.exceptions import OpenApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (OpenApiException, HTTPError, OSError, ValueError) as error:
            raise broken(error, what, self.server) from None
