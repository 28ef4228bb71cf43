"""One figure each. All wait for what the API server says, not for what the operator believes."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.operator.world import (
    PODS,
    World,
    cpu_seconds,
    create_bare_pods,
    create_jobs,
    memory_mib,
    numbers,
    until,
)


def states(here: World) -> dict[str, int]:
    """Jobs by state."""
    lines = here.cluster.kubectl("get", "rtj", "-n", "bench", "-o", "jsonpath={range .items[*]}{.status.state}{'\\n'}")
    found: dict[str, int] = {}
    for line in lines.splitlines():
        found[line] = found.get(line, 0) + 1
    return found


def fleet(here: World, jobs: int, pods: int) -> dict[str, Any]:
    """Jobs of some pods each, created at once: until all run. Then how idle the operator is, and how it starts anew."""
    with here.operator() as operator:
        operator.start()
        began = time.perf_counter()
        here.run(lambda kube: create_jobs(kube, jobs, pods))
        until(lambda: states(here).get("Running", 0) >= jobs, 1800, f"{jobs} jobs to run; {states(here)}")
        seconds = time.perf_counter() - began
        looks = numbers(operator)
        found = {
            "jobs": jobs,
            "pods": jobs * pods,
            "running_seconds": round(seconds, 1),
            "memory_mib": round(memory_mib(operator), 1),
            "reconcile_ms_p50": quantile(looks, 0.5),
            "reconcile_ms_p99": quantile(looks, 0.99),
            **idle(operator),
        }
    return {**found, **start(here, jobs)}


def idle(operator: Any, seconds: float = 60.0) -> dict[str, float]:
    time.sleep(20)
    before, cpu = numbers(operator)["ring_operator_api_requests"], cpu_seconds(operator)
    time.sleep(seconds)
    after = numbers(operator)["ring_operator_api_requests"]
    share = (cpu_seconds(operator) - cpu) / seconds
    return {"idle_requests_per_minute": (after - before) * 60 / seconds, "idle_cpu_share": round(share, 3)}


def start(here: World, jobs: int) -> dict[str, float]:
    """An operator that finds everything running: from its start to the first look at every job."""
    with here.operator() as operator:
        began = time.perf_counter()
        operator.start()
        until(lambda: numbers(operator).get("ring_operator_reconcile_seconds_count", 0) >= jobs, 300, "a look at all")
        return {
            "start_seconds": round(time.perf_counter() - began, 2),
            "start_memory_mib": round(memory_mib(operator), 1),
        }


def large(here: World, pods: int) -> dict[str, Any]:
    """One job of many pods: from apply to the last pod created, beside a bare client with pods just like these."""
    with here.operator() as operator:
        operator.start()
        began = time.perf_counter()
        here.run(lambda kube: create_jobs(kube, 1, pods))
        until(lambda: _count(here) >= pods, 300, f"{pods} pods; there are {_count(here)}")
        seconds = time.perf_counter() - began
    template = _template(here)
    bare = here.run(lambda kube: create_bare_pods(kube, template, pods))
    return {
        "pods": pods,
        "created_seconds": round(seconds, 2),
        "pods_per_second": round(pods / seconds),
        "bare_pods_per_second": round(bare),
        "share_of_bare": round(pods / seconds / bare, 3),
    }


def _count(here: World) -> int:
    answer: dict[str, Any] = here.run(lambda kube: kube.request("GET", f"{PODS}?limit=1"))
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount") or 0)


def _template(here: World) -> dict[str, Any]:
    """A pod of the job as it was created, without what the API server added, and without a job that looks after it."""
    raw: dict[str, Any] = here.run(lambda kube: kube.request("GET", f"{PODS}/job-0-0"))
    labels = {"bench": "bare"}
    kept = {
        key: value for key, value in raw["spec"].items() if key not in ("nodeName", "tolerations", "serviceAccount")
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels}, "spec": kept}


def quantile(found: dict[str, float], share: float) -> float | None:
    """Upper bound of the bucket that holds this share of the looks, in milliseconds."""
    total = found.get("ring_operator_reconcile_seconds_count", 0.0)
    prefix = 'ring_operator_reconcile_seconds_bucket{le="'
    buckets = sorted(
        (float(name[len(prefix) : -2].replace("+Inf", "inf")), value)
        for name, value in found.items()
        if name.startswith(prefix)
    )
    return next((1000 * bound for bound, count in buckets if count >= share * total), None)
