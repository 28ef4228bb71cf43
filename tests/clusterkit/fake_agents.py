"""The agents of pods that kwok plays: `with FakeAgents(kubeconfig) as agents: agents.break_rank("default", "job", 3)`.

In: a cluster whose pods have addresses of this machine. Out: `GET :8471/status` and `/stacks` for every running pod of
every job, as its agent would answer, following the rank tables that the operator publishes; and the end of the pods'
containers, written to their status as a kubelet would. What the agents do is in `FakeJob`; here are the watch, the
server, the writes. It all happens in one thread with a loop of its own; the methods may be called from any other.
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from clusterkit import pod_status
from clusterkit.agent_server import AgentServer, Page, Silence
from clusterkit.fake_job import Course, FakeJob, stacks
from clusterkit.kube import RETRY_SECONDS, STRATEGIC, Kube, KubeError, Manifest
from ring_operator import names
from ring_worker.contract import AgentState, AgentStatus, ContractError, RankTable

Result = TypeVar("Result")
Key = tuple[str, str]  # namespace and name
ENDED = frozenset({"Succeeded", "Failed"})
CALL_SECONDS = 60.0


class FakeAgents:
    """`course`: how training goes in jobs that begin from now on. `problems`: what an agent would have refused."""

    def __init__(self, kubeconfig: Path, course: Course | None = None, port: int = names.STATUS_PORT) -> None:
        self.course = course or Course()
        self.problems: list[str] = []
        self._kubeconfig = kubeconfig
        self._port = port
        self._jobs: dict[Key, FakeJob] = {}
        self._pods: dict[Key, Manifest] = {}  # those that run
        self._tables: dict[Key, tuple[str, RankTable]] = {}  # by job: text and content
        self._addresses: dict[str, Key] = {}
        self._mute: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None  # these agents themselves
        self._listed = {"pods": threading.Event(), "configmaps": threading.Event()}

    def __enter__(self) -> Self:
        _allow_many_files()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-agents", daemon=True)
        self._thread.start()
        try:
            self._call(self._open())
        except BaseException:
            self._end_thread()
            raise
        assert all(event.wait(CALL_SECONDS) for event in self._listed.values()), "the API server gives no lists"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._close())
        self._end_thread()
        if self._broken is not None and error is None:
            raise self._broken

    def status(self, namespace: str, pod: str) -> AgentStatus | None:
        """What the pod's agent would answer; None where none runs."""
        return self._call(self._now(lambda: self._status((namespace, pod))))

    def break_rank(self, namespace: str, job: str, rank: int, exit_code: int = 1, error: str = "") -> None:
        """A rank ends with `exit_code`; its pod goes on and waits for the next epoch."""
        change = lambda fake: fake.with_broken_rank(rank, exit_code, error, time.monotonic())  # noqa: E731
        self._call(self._now(lambda: self._change((namespace, job), change)))

    def hang(self, namespace: str, job: str) -> None:
        """No step from now on until the next epoch."""
        self._call(self._now(lambda: self._change((namespace, job), lambda fake: fake.hung(time.monotonic()))))

    def mute(self, namespace: str, pod: str, on: bool = True) -> None:
        """Its agent accepts connections and says nothing, as one that is stopped."""
        change = self._mute.add if on else self._mute.discard
        self._call(self._now(lambda: change((namespace, pod))))

    def succeed(self, namespace: str, job: str) -> None:
        """Training is over: every member ends with 0."""
        self._call(self._succeed((namespace, job)))

    def crash(self, namespace: str, pod: str, exit_code: int = 1, reason: str = "Error") -> None:
        """The pod's containers end, with the agent."""
        self._call(self._end_pod((namespace, pod), lambda gone: pod_status.ended(gone, exit_code, reason, _utc())))

    def evict(self, namespace: str, pod: str, reason: str = "Evicted", message: str = "out of memory") -> None:
        """The node gives the pod up."""
        self._call(self._end_pod((namespace, pod), lambda gone: pod_status.evicted(reason, message)))

    # From here on everything runs in the loop.

    async def _open(self) -> None:
        self._server = AgentServer(self._port, self._answer)
        self._kube = await Kube(self._kubeconfig).__aenter__()
        self._spawn(self._follow("pods", self._saw_pod))
        self._spawn(self._follow("configmaps", self._saw_config_map))

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()
        await self._kube.__aexit__(None, None, None)

    async def _follow(self, kind: str, saw: Callable[[str, Manifest], None]) -> None:
        async for event, thing in self._kube.follow(f"/api/v1/{kind}", labelSelector=names.LABEL_JOB):
            if event == "LISTED":
                self._forget_missing(kind, {_key(item) for item in thing["items"]})
                for item in thing["items"]:
                    saw("ADDED", item)
                self._listed[kind].set()
            else:
                saw(event, thing)

    def _forget_missing(self, kind: str, there: set[Key]) -> None:
        if kind == "pods":
            for key in self._pods.keys() - there:
                self._pod_gone(key)

    def _saw_pod(self, event: str, pod: Manifest) -> None:
        key, status = _key(pod), pod.get("status", {})
        if event == "DELETED" or status.get("phase") in ENDED:
            self._pod_gone(key)
        elif status.get("phase") == "Running" and status.get("podIP"):
            if key in self._pods and self._pods[key]["metadata"]["uid"] != pod["metadata"]["uid"]:
                self._pod_gone(key)
            self._pod_runs(key, pod)

    def _pod_runs(self, key: Key, pod: Manifest) -> None:
        self._pods[key] = pod
        self._listen(pod["status"]["podIP"], key)
        job = _job(pod)
        uid = _owner(pod)
        if job not in self._jobs or self._jobs[job].uid != uid:
            self._jobs[job] = FakeJob(uid, self.course)
        self._change(job, lambda fake: fake.with_pod(key[1], time.monotonic()))
        self._publish(job)

    def _listen(self, address: str, key: Key) -> None:
        """A pod that is gone without a word may have left its address to this one."""
        if self._addresses.get(address) != key:
            self._server.leave(address)
            self._server.listen(address)
            self._addresses[address] = key

    def _pod_gone(self, key: Key) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        self._mute.discard(key)
        if self._addresses.get(pod["status"]["podIP"]) == key:
            del self._addresses[pod["status"]["podIP"]]
            self._server.leave(pod["status"]["podIP"])
        self._change(_job(pod), lambda fake: fake.without_pod(key[1], time.monotonic()))

    def _saw_config_map(self, event: str, config_map: Manifest) -> None:
        job = _job(config_map)
        if config_map["metadata"]["name"] != names.ranks_map(job[1]):
            return
        if event == "DELETED":
            self._tables.pop(job, None)
            return
        text = config_map.get("data", {}).get(names.RANKS_KEY, "")
        if job in self._tables and self._tables[job][0] == text:
            return
        try:
            self._tables[job] = text, RankTable.from_json(text)
        except ContractError as error:
            self.problems.append(f"{job[0]}/{config_map['metadata']['name']}: {error}")
            return
        self._publish(job)

    def _publish(self, job: Key) -> None:
        """The job's pods read their rank table."""
        if job in self._tables and job in self._jobs:
            table = self._tables[job][1]
            self._change(job, lambda fake: fake.with_table(table, time.monotonic()))

    def _change(self, job: Key, change: Callable[[FakeJob], FakeJob]) -> None:
        if job not in self._jobs:
            raise ValueError(f"no pod of job {job[0]}/{job[1]} runs")
        before, after = self._jobs[job], change(self._jobs[job])
        self._jobs[job] = after
        if after.ends_at is not None and after.ends_at != before.ends_at:
            self._spawn(self._succeed_at(job, after.ends_at))

    async def _succeed_at(self, job: Key, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))
        if self._jobs[job].ends_at == when:  # not broken, halted or begun anew meanwhile
            await self._succeed(job)

    async def _succeed(self, job: Key) -> None:
        self._change(job, lambda fake: fake.succeeded(time.monotonic()))
        done = [pod for pod, agent in self._jobs[job].agents.items() if agent.state == AgentState.SUCCEEDED]
        if not done:
            raise ValueError(f"no rank of job {job[0]}/{job[1]} runs")
        ending = lambda gone: pod_status.ended(gone, 0, "Completed", _utc())  # noqa: E731
        await asyncio.gather(*(self._end_pod((job[0], pod), ending) for pod in done))

    async def _end_pod(self, key: Key, ending: Callable[[Manifest], Manifest]) -> None:
        if key not in self._pods:
            raise ValueError(f"pod {key[0]}/{key[1]} does not run")
        pod = self._pods[key]
        self._pod_gone(key)
        patch = {**ending(pod), "metadata": {"uid": pod["metadata"]["uid"]}}  # of this very pod, not of a successor
        await self._write_status(key, patch)

    async def _write_status(self, key: Key, patch: Manifest) -> None:
        """Like a kubelet, again and again until the API server takes it, or the pod is gone."""
        path = f"/api/v1/namespaces/{key[0]}/pods/{key[1]}/status"
        while True:
            try:
                await self._kube.request("PATCH", path, patch, STRATEGIC)
                return
            except KubeError as error:
                if error.status in (404, 409):
                    return
                if error.status < 429:
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(RETRY_SECONDS)

    def _answer(self, address: str, path: str) -> Page | None:
        key = self._addresses.get(address)
        if key in self._mute:
            raise Silence
        status = self._status(key) if key else None
        if status is None:
            return None
        match path.partition("?")[0]:
            case "/status":
                return Page("application/json", status.to_json())
            case "/stacks":
                return Page("text/plain; charset=utf-8", stacks(status))
        return Page("text/plain", "", HTTPStatus.NOT_FOUND)

    def _status(self, key: Key) -> AgentStatus | None:
        pod = self._pods.get(key)
        return self._jobs[_job(pod)].status(key[1], time.monotonic()) if pod else None

    async def _now(self, act: Callable[[], Result]) -> Result:
        return act()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = self._broken or task.exception()

    # And this again in the caller's thread.

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _allow_many_files() -> None:
    """Every pod has a socket that listens."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _utc() -> datetime:
    return datetime.now(UTC)


def _key(thing: Manifest) -> Key:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _job(thing: Manifest) -> Key:
    return thing["metadata"]["namespace"], thing["metadata"]["labels"][names.LABEL_JOB]


def _owner(pod: Manifest) -> str:
    """The uid of the job, which its pods have from the RunConfig: it is their controller."""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")
