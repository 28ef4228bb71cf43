"""What can go wrong between a person and a cluster: the API server's answer -> an error in the house's words.

The kind decides the exit code of `ringctl`: refused (1), not found (4), no connection or no right (5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ring_operator.errors import Fault, UserError


class RemoteError(UserError):
    """A request to a cluster that came to nothing."""


class RefusedError(RemoteError):
    """The API server understood, and says no to what was asked. `conflict`: others own fields of it."""

    def __init__(self, faults: Iterator[Fault] | list[Fault], conflict: bool = False) -> None:
        super().__init__(faults)
        self.conflict = conflict


class NotFoundError(RemoteError):
    exit_code = 4


class UnreachableError(RemoteError):
    """There is no connection, or no right to what was asked. `again`: whether a later try may well succeed."""

    exit_code = 5

    def __init__(self, message: str, remedy: str = "", again: bool = False) -> None:
        super().__init__([Fault("", message, remedy)])
        self.again = again


class ExpiredError(RemoteError):
    """The version of the list from which a watch was to go on is no more (410): list again."""


INSTALL_CRD = "Install it: ringctl crd | kubectl apply --server-side -f -, and then the operator."
_CAUSE_KIND = re.compile(r'^(Invalid value: |Forbidden: |Required value: |Unsupported value: )("object": )?')
_BUSY = "The API server is overloaded, or starts. Try again in a moment."


def error_of(status: int, body: str, what: str) -> RemoteError:
    """The error of an answer of 400 and above. `what`: the request in a few words, `read the job a`."""
    answer = _answer(body)
    message = str(answer.get("message") or body.strip()[:300] or f"HTTP status {status}")
    match status:
        case 401:
            return _not_you(message, what)
        case 403:
            return _forbidden(answer, message, what)
        case 404:
            return _missing(answer, message, what)
        case 409 | 400 | 405 | 413 | 415 | 422:
            return RefusedError(list(_faults(answer, message, what)), conflict=_is_conflict(answer))
        case 410:
            return ExpiredError([Fault("", f"{what}: {message}")])
    remedy = _BUSY if status in (429, 503) else ""
    return UnreachableError(f"{what}: HTTP status {status}: {message}", remedy, again=True)


def _answer(body: str) -> Mapping[str, Any]:
    """A `Status` object; empty where something else answered."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _not_you(message: str, what: str) -> RemoteError:
    remedy = "They may have expired. Log in to the cluster again, or name another --context."
    return UnreachableError(
        f"{what}: the cluster does not accept the credentials in your kubeconfig ({message})", remedy
    )


def _forbidden(answer: Mapping[str, Any], message: str, what: str) -> RemoteError:
    """Either this person may not, or an admission rule says no to what was asked."""
    if re.search(r'User ".*" cannot ', message):
        remedy = "Ask an administrator of the cluster for the right, or name another --namespace or --context."
        return UnreachableError(f"{what}: {message}", remedy)
    return RefusedError(list(_faults(answer, message, what)))


def _missing(answer: Mapping[str, Any], message: str, what: str) -> RemoteError:
    if not answer or not _map(answer, "details").get("name"):
        return UnreachableError(f"{what}: the cluster does not know RingTrainingJobs", INSTALL_CRD)
    return NotFoundError([Fault("", f"{what}: {message}", _namespace_remedy(answer))])


def _namespace_remedy(answer: Mapping[str, Any]) -> str:
    kind, name = _map(answer, "details").get("kind"), _map(answer, "details").get("name")
    return f"Make it: kubectl create namespace {name}" if kind == "namespaces" else ""


def _faults(answer: Mapping[str, Any], message: str, what: str) -> Iterator[Fault]:
    """One for each cause, at its field; the message where there are none."""
    causes = _map(answer, "details").get("causes")
    found = [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []
    if not found:
        yield Fault("", f"{what}: {message}")
    for cause in found:
        said = _CAUSE_KIND.sub("", str(cause.get("message") or message))
        remedy = "Take it over with --force-conflicts, or leave it out." if _is_conflict(answer) else ""
        yield Fault(str(cause.get("field") or "").strip("."), said, remedy)


def _is_conflict(answer: Mapping[str, Any]) -> bool:
    return answer.get("reason") == "Conflict"


def _map(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, dict) else {}
