"""What the operator counts of itself and of its jobs, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from ring_operator.reconcile.view import Identity
from ring_operator.status.conditions import PROGRESSING, is_true
from ring_operator.status.document import JobStatus, PlacementStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_JOB = ("namespace", "job")
_CLASSES = ("application", "infrastructure")


class Metrics:
    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.reconciles = Counter("ring_operator_reconcile", "Looks at jobs", ["result"], registry=r)
        self.seconds = Histogram(
            "ring_operator_reconcile_seconds",
            "Duration of one look, its requests included",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=r,
        )
        self.queue_depth = Gauge("ring_operator_queue_depth", "Jobs that wait for a look", registry=r)
        self.queue_age = Gauge("ring_operator_queue_age_seconds", "For how long the most overdue one waits", registry=r)
        self.staleness = Gauge(
            "ring_operator_watch_staleness_seconds", "Since the API server was heard last", ["resource"], registry=r
        )
        self.requests = Gauge("ring_operator_api_requests", "Requests to the API server since the start", registry=r)
        self.leading = Gauge("ring_operator_leading", "1 where this replica may write", registry=r)
        self.jobs = Gauge("ring_operator_jobs", "Jobs by state", ["state"], registry=r)
        self.restarts = Counter("ring_operator_job_restarts", "Restarts by class", [*_JOB, "class"], registry=r)
        self.epoch = Gauge("ring_operator_job_epoch", "Epoch of the rank table", _JOB, registry=r)
        self.step = Gauge("ring_operator_job_step", "Last finished step", _JOB, registry=r)
        self.loss = Gauge("ring_operator_job_loss", "Loss of the last logged step", _JOB, registry=r)
        self.hops = Gauge(
            "ring_operator_job_hops", "Ring hops by the level that they cross", [*_JOB, "level"], registry=r
        )
        self.cost = Gauge("ring_operator_job_placement_cost", "Sum of the hops' weights", _JOB, registry=r)
        self.bound = Gauge("ring_operator_job_placement_lower_bound", "No placement costs less", _JOB, registry=r)
        self.retries = Gauge(
            "ring_operator_job_placement_retries",
            "How often all pods were made anew for want of a node",
            _JOB,
            registry=r,
        )
        self.recovery = Histogram(
            "ring_operator_recovery_seconds",
            "From a failure being seen to the first step of the next epoch",
            buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
            registry=r,
        )
        of_placement = (self.hops, self.cost, self.bound, self.retries)
        self._of_jobs = (self.epoch, self.step, self.loss, self.restarts, *of_placement)
        self._broken_at: dict[tuple[str, str], tuple[int, float]] = {}

    def tell(self, job: Identity, before: JobStatus, now: JobStatus) -> None:
        """What a job's status says, and what has changed in it."""
        key = job.key
        self.epoch.labels(*key).set(now.epoch)
        if now.progress is not None:
            self.step.labels(*key).set(now.progress.step)
            if now.progress.loss is not None:
                self.loss.labels(*key).set(now.progress.loss)
        if (lies := now.placement) is not None:
            self._lies(key, lies)
        for kind in _CLASSES:
            more = getattr(now.restarts, kind) - getattr(before.restarts, kind)
            self.restarts.labels(*key, kind).inc(max(0, more))
            if more > 0:
                self._broken_at[key] = (now.epoch, time.monotonic())
        self._recovered(key, now)

    def _lies(self, key: tuple[str, str], lies: PlacementStatus) -> None:
        for entry in lies.hops:
            self.hops.labels(*key, entry.level).set(entry.hops)
        self.retries.labels(*key).set(lies.retries)
        if lies.cost is not None and lies.lower_bound is not None:
            self.cost.labels(*key).set(lies.cost)
            self.bound.labels(*key).set(lies.lower_bound)

    def _recovered(self, key: tuple[str, str], now: JobStatus) -> None:
        broken = self._broken_at.get(key)
        if broken and now.epoch >= broken[0] and is_true(now, PROGRESSING):
            del self._broken_at[key]
            self.recovery.observe(time.monotonic() - broken[1])

    def forget(self, namespace: str, job: str) -> None:
        """Series of deleted jobs go away."""
        self._broken_at.pop((namespace, job), None)
        for metric in self._of_jobs:
            metric.remove_by_labels({"namespace": namespace, "job": job})

    def render(self) -> bytes:
        return generate_latest(self.registry)
