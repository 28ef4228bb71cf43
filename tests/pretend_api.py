"""An API server at the edge, over real HTTP: jobs, pods, events, config maps and logs of one namespace, and its errors.

`with PretendApi() as api:` gives `api.kubeconfig(folder)`. Patches are merged, every change is an event of a watch, and
`api.refuse(...)` makes it answer with an error instead. What it answers is what the real one does (tests/cluster).
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

from ring_operator import names

Raw = dict[str, Any]
NAMESPACE = "team"
JOBS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"


def refusal(code: int, reason: str, message: str, **details: Any) -> str:
    """A `Status` object as text."""
    return json.dumps(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
    )


class PretendApi:
    """`requests`: (method, path, query, body) of all that was asked. `logs`: by pod; what is appended is streamed."""

    def __init__(self) -> None:
        self.jobs: dict[str, Raw] = {}
        self.pods: list[Raw] = []
        self.nodes: list[Raw] = []
        self.events: list[Raw] = []
        self.config_maps: dict[str, Raw] = {}
        self.logs: dict[str, list[str]] = {}
        self.log_is_open: set[str] = set()
        self.forbidden: set[str] = set()  # paths
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self._refusals: list[tuple[int, str]] = []
        self._changes: list[Raw] = []
        self._news = threading.Condition()
        self._version = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path, server: str = "", namespace: str = NAMESPACE, **user: Any) -> Path:
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server or self.url}}],
            "users": [{"name": "u", "user": user or {"token": "secret"}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def refuse(self, status: int, body: str, times: int = 1) -> None:
        self._refusals += [(status, body)] * times

    def set_status(self, name: str, **status: Any) -> None:
        job = self.jobs[name]
        generation = {"observedGeneration": job["metadata"]["generation"]}
        self._put({**job, "status": {**job.get("status", {}), **generation, **status}})

    def remove(self, name: str) -> None:
        with self._news:
            self._changes.append({"type": "DELETED", "object": self.jobs.pop(name)})
            self._news.notify_all()

    def append_log(self, pod: str, *lines: str) -> None:
        with self._news:
            self.logs.setdefault(pod, []).extend(lines)
            self._news.notify_all()

    def end_log(self, pod: str) -> None:
        with self._news:
            self.log_is_open.discard(pod)
            self._news.notify_all()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Iterator[str]]:
        """Status and parts of the body."""
        self.requests.append((method, path, query, body))
        if self._refusals:
            status, text = self._refusals.pop(0)
            return status, iter([text])
        if path in self.forbidden:
            return 403, iter([refusal(403, "Forbidden", f'{path} is forbidden: User "ada" cannot list it')])
        if path.endswith("/log"):
            return 200, self._log(path.split("/")[-2], query)
        if query.get("watch"):
            return 200, self._watch(int(query["resourceVersion"]), float(query["timeoutSeconds"]))
        found = self._object(method, path, body)
        if found is None:
            name = path.rpartition("/")[2]
            kind = path.split("/")[-2]
            return 404, iter([refusal(404, "NotFound", f'{kind} "{name}" not found', name=name, kind=kind)])
        return 200, iter([json.dumps(found)])

    def _object(self, method: str, path: str, body: Any) -> Raw | None:
        lists = {JOBS: list(self.jobs.values()), f"{CORE}/pods": self.pods, f"{CORE}/events": self.events}
        lists |= {"/api/v1/pods": self.pods, "/api/v1/nodes": self.nodes}
        if path in lists or path == f"/apis/{names.API_VERSION}/{names.PLURAL}":
            return {"items": lists.get(path, list(self.jobs.values())), "metadata": {"resourceVersion": "1"}}
        name = path.rpartition("/")[2]
        if path.startswith(f"{CORE}/configmaps/"):
            return self.config_maps.get(name)
        if method == "PATCH":
            return self._patch(name, body)
        if method == "DELETE" and name in self.jobs:
            self.remove(name)
            return {"kind": "Status", "status": "Success"}
        return self.jobs.get(name)

    def _patch(self, name: str, body: Raw) -> Raw | None:
        before = self.jobs.get(name)
        if before is None and "kind" not in body:
            return None
        fresh = {"metadata": {"uid": f"uid-{name}", "generation": 0, "creationTimestamp": "2026-01-01T00:00:00Z"}}
        after = _merged(before or fresh, body)
        if before == after:
            return before
        if (before or {}).get("spec") != after.get("spec"):
            after["metadata"]["generation"] += 1
        return self._put(after)

    def _put(self, job: Raw) -> Raw:
        with self._news:
            self._version += 1
            job = copy.deepcopy(job)
            job["metadata"]["resourceVersion"] = str(self._version)
            self.jobs[job["metadata"]["name"]] = job
            self._changes.append({"type": "MODIFIED", "object": job})
            self._news.notify_all()
        return job

    def _watch(self, version: int, seconds: float) -> Iterator[str]:
        seen = sum(int(change["object"]["metadata"]["resourceVersion"]) <= version for change in self._changes)
        while self._waited(self._changes, seen, seconds):
            yield json.dumps(self._changes[seen]) + "\n"
            seen += 1

    def _waited(self, items: list[Any], seen: int, seconds: float, pod: str = "") -> bool:
        """Whether there are more items than were seen, or the pod's log has ended, within the time."""
        with self._news:
            self._news.wait_for(lambda: len(items) > seen or bool(pod and pod not in self.log_is_open), seconds)
            return len(items) > seen

    def _log(self, pod: str, query: dict[str, str]) -> Iterator[str]:
        """Each line has a second of its own."""
        lines = [f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}.5Z {line}" for i, line in enumerate(self.logs.get(pod, []))]
        lines = [line for line in lines if line[:19] >= query.get("sinceTime", "")[:19]]
        yield "".join(f"{line}\n" for line in lines[-int(query.get("tailLines", len(lines))) :] if lines)
        seen = len(self.logs.get(pod, []))
        while query.get("follow") and pod in self.log_is_open and self._waited(self.logs[pod], seen, 30, pod):
            yield f"2026-01-01T00:{seen // 60:02d}:{seen % 60:02d}.5Z {self.logs[pod][seen]}\n"
            seen += 1


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return copy.deepcopy(new)


def _handler(api: PretendApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, chunks = api.answer(self.command, parts.path, query, body)
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks:
                if chunk:
                    data = chunk.encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    return Handler
