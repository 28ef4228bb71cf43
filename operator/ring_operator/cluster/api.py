"""Plain JSON requests to the API server, over the official client's connection: its TLS, its tokens, its kubeconfig.

Objects stay dicts, since the client's models cost twenty times the time of `json.loads` for thousands of pods. Errors
have three kinds, which say what to do: `Gone` (look anew), `Refused` (the request itself is wrong; trying it again
helps nobody) and `Unavailable` (try again later).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from yaml import YAMLError

FIELD_MANAGER = "ring-training-operator"
REQUEST_SECONDS = 20.0
WRITE_SECONDS = 5.0  # less than what lies between the renew deadline of the lease and its end
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

Raw = dict[str, Any]


class ApiError(Exception):
    """`status`: of HTTP; 0 where there was no answer."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.retry_after = retry_after


class GoneError(ApiError):
    """The object, or the version of a list, is no more (404, 410)."""


class ConflictError(ApiError):
    """It exists already, or was changed by somebody else (409)."""


class RefusedError(ApiError):
    """Invalid or forbidden (400, 401, 403, 405, 413, 415, 422)."""


class UnavailableError(ApiError):
    """No answer, too many requests, or an error of the server: later."""


class NoClusterError(Exception):
    """Nobody says where the API server is. The text is meant for the user."""


class NotLeaderError(Exception):
    """This replica may not write (any more)."""


async def connect(kubeconfig: str | None = None, context: str | None = None) -> Configuration:
    """In a pod by its service account, else by the kubeconfig. Raises NoClusterError."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 128
    if kubeconfig is None and context is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
            return configuration
        except config.ConfigException:
            pass
    try:
        await config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
    except (config.ConfigException, YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise NoClusterError(
            f"no cluster: {where} is no usable kubeconfig ({_one_line(error)}), and this is no pod"
        ) from None
    return configuration


class Api:
    """`may_write`: asked before every request that changes something."""

    def __init__(self, configuration: Configuration, may_write: Callable[[], bool] = lambda: True) -> None:
        self._client = ApiClient(configuration)
        self._may_write = may_write
        self.requests = 0

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str, **query: Any) -> Raw:
        return await self._json("GET", path, query)

    async def create(self, path: str, body: Raw) -> Raw:
        return await self._json("POST", path, {"fieldManager": FIELD_MANAGER}, body)

    async def replace(self, path: str, body: Raw) -> Raw:
        return await self._json("PUT", path, {"fieldManager": FIELD_MANAGER}, body)

    async def apply(self, path: str, body: Raw) -> Raw:
        """Server-side apply; what others own is taken over, since these objects are ours."""
        return await self._json("PATCH", path, {"fieldManager": FIELD_MANAGER, "force": "true"}, body, _APPLY)

    async def merge(self, path: str, body: Raw) -> Raw:
        return await self._json("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, _MERGE)

    async def delete(self, path: str, body: Raw) -> Raw:
        return await self._json("DELETE", path, {}, body)

    async def watch(self, path: str, silence: float, **query: Any) -> AsyncIterator[Raw]:
        """Events until the server ends the stream or has said nothing for `silence` seconds."""
        response = await self._send("GET", path, {"watch": "true", **query}, None, "", aiohttp.ClientTimeout(None))
        try:
            while line := await asyncio.wait_for(response.content.readline(), silence):
                yield json.loads(line)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(0, f"watch of {path}: {type(error).__name__} {error}") from None
        finally:
            response.close()

    async def _json(
        self, method: str, path: str, query: Mapping[str, Any], body: Raw | None = None, content: str = ""
    ) -> Raw:
        limit = aiohttp.ClientTimeout(REQUEST_SECONDS if method == "GET" else WRITE_SECONDS)
        response = await self._send(method, path, query, body, content, limit)
        try:
            answer = json.loads(await response.read())
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            raise UnavailableError(0, f"{method} {path}: {type(error).__name__} {error}") from None
        if not isinstance(answer, dict):
            raise UnavailableError(0, f"{method} {path}: not an object")
        return answer

    async def _send(
        self, method: str, path: str, query: Mapping[str, Any], body: Raw | None, content: str, limit: Any
    ) -> aiohttp.ClientResponse:
        if method != "GET" and not self._may_write():
            raise NotLeaderError(f"{method} {path}")
        self.requests += 1
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER, **await self._authorization()}
        if body is not None:
            headers["Content-Type"] = content or "application/json"
        url = f"{self._client.configuration.host}{path}?{urlencode(query)}" if query else self._url(path)
        try:
            answer = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=limit
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(0, f"{method} {path}: {type(error).__name__} {error}") from None
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 400:
            raise await _error(response, f"{method} {path}")
        return response

    def _url(self, path: str) -> str:
        return f"{self._client.configuration.host}{path}"

    async def _authorization(self) -> dict[str, str]:
        settings = await self._client.configuration.auth_settings()
        return {s["key"]: s["value"] for s in settings.values() if s["in"] == "header" and s["value"]}


async def _error(response: aiohttp.ClientResponse, what: str) -> ApiError:
    try:
        text = (await response.read()).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError, TimeoutError):
        text = ""
    status, message = response.status, f"{what}: {_message(text)}"
    if status in (404, 410):
        return GoneError(status, message)
    if status == 409:
        return ConflictError(status, message)
    if status in (400, 401, 403, 405, 413, 415, 422):
        return RefusedError(status, message)
    wait = response.headers.get("Retry-After", "")
    return UnavailableError(status, message, float(wait) if wait.isdigit() else None)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text[:200]


def _one_line(error: Exception) -> str:
    """What the client's loader says of a file that it cannot make sense of, which may be any error at all."""
    return " ".join(str(error).split())[:200] or type(error).__name__
