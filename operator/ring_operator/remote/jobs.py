"""The jobs of one namespace: read, written, watched; with their pods, events, ranks and logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ring_operator import names
from ring_operator.errors import Fault
from ring_operator.remote.api import WATCH_SECONDS, Api, Raw
from ring_operator.remote.errors import ExpiredError, NotFoundError, RemoteError, UnreachableError
from ring_operator.remote.kubeconfig import Target, settings_of
from ring_operator.remote.objects import EventSeen, JobSeen, PodSeen, events_seen, job_seen, pods_seen
from ring_worker.contract import ContractError, RankTable

_GROUP = f"/apis/{names.API_VERSION}"
RETRY_SECONDS = 2.0
_BREATH_SECONDS = 0.3  # between two watches, were the server to end each at once
POLL_SECONDS = 1.0
UNSEEN_WATCH_SECONDS = 5
PATIENCE_SECONDS = 300.0  # without an answer from the API server, while something is waited for


_T = TypeVar("_T")
Trouble = Callable[[RemoteError], None]


def connect(target: Target) -> Jobs:
    """Raises UnreachableError. Nothing is asked yet."""
    settings = settings_of(target)
    return Jobs(Api(settings), settings.namespace)


class Jobs:
    """Every method may raise a RemoteError."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    def get(self, name: str) -> JobSeen:
        """Raises NotFoundError with the names that there are."""
        try:
            return job_seen(self._api.get(self._path(name), f"job {name}"))
        except NotFoundError:
            raise self._not_found(name) from None

    def find(self, name: str) -> JobSeen | None:
        try:
            return job_seen(self._api.get(self._path(name), f"job {name}"))
        except NotFoundError:
            return None

    def all(self, everywhere: bool = False) -> list[JobSeen]:
        """By namespace and name. `everywhere`: in all namespaces."""
        path = f"{_GROUP}/{names.PLURAL}" if everywhere else self._path()
        found = [job_seen(raw) for raw in self._api.list(path, "the list of jobs")]
        return sorted(found, key=lambda job: (job.namespace, job.name))

    def apply(self, manifest: Raw, force: bool) -> JobSeen:
        name = manifest["metadata"]["name"]
        return job_seen(self._api.apply(self._path(name), f"job {name}", manifest, force))

    def merge(self, name: str, patch: Raw) -> JobSeen:
        try:
            return job_seen(self._api.merge(self._path(name), f"job {name}", patch))
        except NotFoundError:
            raise self._not_found(name) from None

    def delete(self, job: JobSeen) -> None:
        """Just this job, no namesake; what belongs to it goes in the background."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": job.uid}}
        self._api.delete(self._path(job.name), f"job {job.name}", body)

    def pods(self, job: JobSeen) -> list[PodSeen]:
        path = f"/api/v1/namespaces/{job.namespace}/pods"
        selector = f"{names.LABEL_JOB}={job.name}"
        return pods_seen(self._api.list(path, f"pods of job {job.name}", labelSelector=selector), job.uid)

    def events(self, job: JobSeen) -> list[EventSeen]:
        path = f"/api/v1/namespaces/{job.namespace}/events"
        selector = f"involvedObject.uid={job.uid}"
        return events_seen(self._api.list(path, f"events of job {job.name}", fieldSelector=selector))

    def ranks(self, job: JobSeen) -> RankTable | None:
        """The newest rank table; None where none was published yet, or where it cannot be read."""
        path = f"/api/v1/namespaces/{job.namespace}/configmaps/{names.ranks_map(job.name)}"
        try:
            data = self._api.get(path, f"ranks of job {job.name}").get("data") or {}
            table = RankTable.from_json(data.get(names.RANKS_KEY, ""))
        except (NotFoundError, ContractError):
            return None
        return table if table.job_uid == job.uid else None

    def log(self, pod: PodSeen, container: str, **query: Any) -> Iterator[str]:
        path = f"/api/v1/namespaces/{pod.facts.namespace}/pods/{pod.facts.name}/log"
        return self._api.lines(path, f"log of {pod.facts.name}", container=container, **query)

    def within(self, namespace: str | None) -> Jobs:
        """The jobs of another namespace; of this one for None."""
        return Jobs(self._api, namespace or self.namespace)

    def follow(self, name: str, trouble: Trouble) -> Iterator[JobSeen | None]:
        """The job now, and whenever it may have changed, for ever; None when there is none (any more)."""
        while True:
            yield from self.patiently(lambda: self._watched(name), trouble)
            time.sleep(_BREATH_SECONDS)

    def poll(self, look: Callable[[], _T], trouble: Trouble) -> Iterator[_T]:
        """What `look` gives, every second, for ever."""
        while True:
            yield from self.patiently(lambda: iter([look()]), trouble)
            time.sleep(POLL_SECONDS)

    def patiently(self, looks: Callable[[], Iterator[_T]], trouble: Trouble) -> Iterator[_T]:
        """`looks` to its end, over broken connections and restarts of the API server; `trouble` is told of each.

        What lasts longer than PATIENCE_SECONDS is raised.
        """
        answered = time.monotonic()
        while True:
            try:
                for look in looks():
                    answered = time.monotonic()
                    yield look
                return
            except UnreachableError as error:
                if not error.again or time.monotonic() - answered > PATIENCE_SECONDS:
                    raise
                trouble(error)
                time.sleep(RETRY_SECONDS)

    def _watched(self, name: str) -> Iterator[JobSeen | None]:
        """One look and one watch. It is short while no operator has seen the job, which no event tells."""
        try:
            job = self.find(name)
            yield job
            if job is not None:
                yield from self._changes(job)
        except ExpiredError:  # the version that it was to go on from is too old
            return

    def _changes(self, job: JobSeen) -> Iterator[JobSeen | None]:
        """Behind the look at `job`, until the watch ends."""
        seconds = WATCH_SECONDS if job.status.state else UNSEEN_WATCH_SECONDS
        query = {
            "fieldSelector": f"metadata.name={job.name}",
            "resourceVersion": job.version,
            "timeoutSeconds": seconds,
        }
        for event in self._api.watch(self._path(), f"watch of job {job.name}", **query):
            if event.get("type") == "DELETED":
                yield None
            elif event.get("type") in ("ADDED", "MODIFIED"):
                yield job_seen(event.get("object") or {})
            else:  # ERROR
                return

    def _path(self, name: str = "") -> str:
        collection = f"{_GROUP}/namespaces/{self.namespace}/{names.PLURAL}"
        return f"{collection}/{name}" if name else collection

    def _not_found(self, name: str) -> NotFoundError:
        try:
            there = ", ".join(job.name for job in self.all())
        except RemoteError:
            there = ""
        remedy = f"There are: {there}." if there else "There are no jobs in it. Another namespace: -n."
        return NotFoundError([Fault("", f"there is no job {name} in namespace {self.namespace}", remedy)])
