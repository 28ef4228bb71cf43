"""Informer and lease against a server that is played here, at the edge: its answers are those of the API's contract."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ring_operator.cluster.api import ConflictError, GoneError, UnavailableError
from ring_operator.cluster.informer import Informer
from ring_operator.cluster.lease import Lease, LeaseName, Pace


def thing(name: str, version: int, value: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": name, "resourceVersion": str(version)}, "value": value}


class Server:
    """`scripts`: one list of events for each watch; an exception in it is raised. Then it is silent."""

    def __init__(self, lists: list[Any], scripts: list[list[Any]]) -> None:
        self.lists, self.scripts = lists, scripts
        self.watched: list[str] = []

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"items": answer, "metadata": {"resourceVersion": "100"}}

    async def watch(self, path: str, silence: float, **query: Any) -> AsyncIterator[dict[str, Any]]:
        self.watched.append(query["resourceVersion"])
        for event in self.scripts.pop(0) if self.scripts else [None]:
            if isinstance(event, Exception):
                raise event
            if event is None:
                await asyncio.sleep(3600)
            yield event


def follow(server: Server, until: int = 1) -> tuple[Informer[str], list[tuple[Any, Any]]]:
    """Run an informer until it has begun `until` watches."""
    told: list[tuple[Any, Any]] = []

    async def body() -> Informer[str]:
        informer: Informer[str] = Informer(
            server,  # type: ignore[arg-type]
            "/things",
            lambda raw: raw["value"] or None,
            lambda before, now: told.append((before, now)),
        )
        task = asyncio.create_task(informer.run())
        async with asyncio.timeout(20):
            while len(server.watched) < until:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return informer

    return asyncio.run(body()), told


def test_what_the_list_and_the_events_say_is_kept_and_told() -> None:
    changes = [
        {"type": "MODIFIED", "object": thing("a", 101, "two")},
        {"type": "ADDED", "object": thing("b", 102, "one")},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "150"}}},
        {"type": "DELETED", "object": thing("a", 151, "two")},
    ]
    server = Server([[thing("a", 1, "one")]], [changes])
    informer, told = follow(server, until=2)
    assert informer.items == {("team", "b"): "one"}
    assert told == [(None, "one"), ("one", "two"), (None, "one"), ("two", None)]
    assert server.watched == ["100", "151"]


def test_a_deletion_that_no_event_told_of_is_told_after_the_next_list() -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    server = Server([[thing("a", 1, "one"), thing("b", 2, "two")], [thing("b", 2, "two")]], [[expired]])
    informer, told = follow(server, until=2)
    assert informer.items == {("team", "b"): "two"}
    assert told[-1] == ("one", None)
    assert informer.relists == 2


@pytest.mark.parametrize(
    "error", [UnavailableError(0, "reset"), UnavailableError(429, "slow down", 0.01), GoneError(410, "old")]
)
def test_errors_are_waited_out(error: Exception) -> None:
    server = Server([error, [thing("a", 1, "one")], [thing("a", 1, "one")]], [[error]])
    informer, told = follow(server, until=2)
    assert informer.items == {("team", "a"): "one"}
    assert told == [(None, "one")]


def test_objects_without_facts_are_not_kept() -> None:
    informer, told = follow(Server([[thing("a", 1)]], []))
    assert (informer.items, told) == ({}, [])


def test_an_event_that_changes_no_fact_is_not_told() -> None:
    same = {"type": "MODIFIED", "object": thing("a", 101, "one")}
    _, told = follow(Server([[thing("a", 1, "one")]], [[same]]), until=2)
    assert told == [(None, "one")]


class LeaseServer:
    """One lease, with optimistic concurrency. `down`: it does not answer."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    async def get(self, path: str) -> dict[str, Any]:
        if self.down:
            raise UnavailableError(0, "down")
        if self.lease is None:
            raise GoneError(404, "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ConflictError(409, "exists")
        return self._put(body)

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.down:
            raise UnavailableError(0, "down")
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ConflictError(409, "changed")
        return self._put(body)

    def _put(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease


PACE = Pace(duration=0.6, deadline=0.4, retry=0.05)


def lease(server: LeaseServer, holder: str) -> Lease:
    return Lease(server, LeaseName("ring-system", "operator", holder), PACE)  # type: ignore[arg-type]


def test_only_one_of_two_replicas_leads_and_the_other_follows_when_it_gives_up() -> None:
    async def body() -> None:
        server = LeaseServer()
        first, second = lease(server, "a"), lease(server, "b")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(1.0)
        assert (first.leading, second.leading) == (True, False)
        keeping.cancel()
        await first.release()
        assert not first.leading
        await asyncio.wait_for(waiting, 10)
        assert second.leading
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 2

    asyncio.run(body())


def test_a_leader_that_cannot_renew_stops_before_another_begins() -> None:
    async def body() -> None:
        server = LeaseServer()
        first, second = lease(server, "a"), lease(server, "b")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        server.down = True
        await asyncio.wait_for(first.lost.wait(), 10)
        assert not first.leading
        server.down = False
        await asyncio.wait_for(second.acquire(), 10)
        assert (first.leading, second.leading) == (False, True)
        await keeping

    asyncio.run(body())
