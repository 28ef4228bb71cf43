"""The operator dies, is cut off, or gets nothing but errors, at every moment of a job's life. The end is the same.

After each: the job has succeeded, with one pod a place and no restart that nothing called for; nothing is orphaned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterkit.component import Component
from clusterkit.control_plane import ControlPlane
from clusterkit.jobs import Jobs, manifest, until
from clusterkit.operator_process import operator_component
from clusterkit.proxy import Proxy

MOST_REQUESTS = 400


@pytest.fixture
def proxy(installed: Path, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(installed, tmp_path / "proxied.kubeconfig") as between:
        yield between


@pytest.fixture
def operator(proxy: Proxy, ready_nodes: list[str], tmp_path: Path) -> Iterator[Component]:
    """Not started."""
    component = operator_component(proxy.kubeconfig, tmp_path)
    yield component
    component.kill()


def names(jobs: Jobs, job: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in jobs.pods(job)]


def finish(jobs: Jobs, job: str) -> None:
    """The training ends well, and all is as it should be."""
    jobs.until_state("Running", job)
    jobs.agents.succeed(jobs.namespace, job)
    status = jobs.until_state("Succeeded", job)
    assert names(jobs, job) == [f"{job}-0", f"{job}-1"]
    assert status["restarts"].get("total", 0) == 0


def life(jobs: Jobs, operator: Component, job: str) -> None:
    """Of one small job, with an operator that is started again whenever it is found dead."""
    jobs.apply(manifest(job, pods=2))

    def runs() -> bool:
        if not operator.alive:
            operator.launch()
        return jobs.status(job).get("state") == "Running"

    until(runs, f"{job} to run")
    jobs.agents.succeed(jobs.namespace, job)

    def done() -> bool:
        if not operator.alive:
            operator.launch()
        return jobs.status(job).get("state") == "Succeeded"

    until(done, f"{job} to succeed")
    status = jobs.status(job)
    assert names(jobs, job) == [f"{job}-0", f"{job}-1"]
    assert (status["restarts"].get("total", 0), status["epoch"]) == (0, 1)


@pytest.mark.timeout(1800)
def test_killed_after_every_request_of_a_jobs_life(jobs: Jobs, operator: Component, proxy: Proxy) -> None:
    operator.start()
    life(jobs, operator, "whole")
    requests = proxy.requests
    assert 20 < requests < MOST_REQUESTS
    for number in range(1, requests + 1):
        operator.kill()
        proxy.requests = 0
        proxy.at_request(number, operator.kill)
        operator.launch()
        life(jobs, operator, f"killed-{number}")
        jobs.kubectl("delete", "rtj", f"killed-{number}")


def test_the_api_server_is_restarted(jobs: Jobs, operator: Component, plane: ControlPlane) -> None:
    operator.start()
    jobs.apply(manifest("first", pods=2))
    jobs.until_state("Running", "first")
    plane.apiserver.restart()
    jobs.apply(manifest("second", pods=2))
    finish(jobs, "second")
    finish(jobs, "first")
    assert operator.alive


def test_etcd_stands_still_for_a_while(jobs: Jobs, operator: Component, plane: ControlPlane) -> None:
    operator.start()
    jobs.apply(manifest("tiny", pods=2))
    jobs.until_state("Running")
    plane.etcd.pause()
    time.sleep(6)
    plane.etcd.resume()
    finish(jobs, "tiny")


def test_what_was_deleted_while_the_operator_was_cut_off(jobs: Jobs, operator: Component, proxy: Proxy) -> None:
    operator.start()
    for job in ("stays", "goes"):
        jobs.apply(manifest(job, pods=2))
        jobs.until_state("Running", job)
    proxy.partition(True)
    jobs.kubectl("delete", "pod", "stays-1", "--wait=true")
    jobs.kubectl("delete", "rtj", "goes")
    proxy.partition(False)
    if not operator.alive:  # it gave up the lease, as it must
        operator.launch()
    status = jobs.until_state("Running", "stays", epoch=2)
    assert status["restarts"]["infrastructure"] == 1
    assert names(jobs, "stays") == ["stays-0", "stays-1-r1"]
    until(lambda: names(jobs, "goes") == [], "the pods of the deleted job to be gone")


@pytest.mark.parametrize("codes", [(409,), (410,), (429,), (500, 503)], ids=str)
def test_a_storm_of_errors(jobs: Jobs, operator: Component, proxy: Proxy, codes: tuple[int, ...]) -> None:
    proxy.storm(codes, 0.3)
    operator.launch()
    jobs.apply(manifest("tiny", pods=2))

    def runs() -> bool:
        if not operator.alive:
            operator.launch()
        return jobs.status().get("state") == "Running"

    until(runs, "the job to run in spite of it", 180)
    assert proxy.failures > 5
    proxy.calm()
    if not operator.alive:
        operator.launch()
    finish(jobs, "tiny")
