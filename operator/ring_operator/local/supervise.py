"""Look, decide, act, ten times a second, until the job is done: the cluster's reconcile loop for one machine.

Nothing is decided here. `observe` and `decide` say what is to be done; this module starts and kills processes,
publishes rank tables and tells what happens. A stop (Ctrl-C, SIGTERM) is for the agents, which let their ranks save a
checkpoint.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ring_operator import names
from ring_operator.local.agents import ask
from ring_operator.local.events import Event, Outcome, Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.local.files import write_whole
from ring_operator.local.folder import LOGS, METRICS, RANKS, RunFolder
from ring_operator.local.kubelet import Machine, PodProcess, free_port
from ring_operator.local.metrics import MetricsTail
from ring_operator.local.pod import Pod
from ring_operator.observe import Failure, History, PodLook, Table, observe
from ring_operator.plan import ParallelPlan
from ring_operator.reconcile import Action, Decision, decide
from ring_operator.spec.workers import Recovery
from ring_worker.contract import (
    AgentStatus,
    ContractError,
    ExitCode,
    Master,
    Member,
    PreparationProgress,
    RankTable,
)

LOOK_SECONDS = 0.1
ASK_SECONDS = 0.3
_LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalJob:
    """What is run. `prepared`: folder in which the data preparation tells its progress. `gpus`: as CUDA names them."""

    uid: str
    plan: ParallelPlan
    pods: tuple[Pod, ...]
    config_maps: Mapping[str, Mapping[str, str]]
    recovery: Recovery
    grace_seconds: float
    prepared: Path
    gpus: tuple[str, ...] = ()


class Supervisor:
    """One run in an opened run folder. `run` belongs into the main thread: processes die with what started them."""

    def __init__(self, job: LocalJob, folder: RunFolder, tell: Callable[[Event], None]) -> None:
        self._job = job
        self._folder = folder
        self._tell = tell
        self._past = folder.past()
        self._table = Table(self._past.epoch + 1)
        self._history = History()
        self._metrics = MetricsTail(folder / METRICS, self._past.epoch)
        config_maps = {name: dict(files) for name, files in job.config_maps.items()}
        self._machine = Machine(config_maps, folder / LOGS)
        self._pods = [PodProcess(pod, self._machine, _devices(job, i)) for i, pod in enumerate(job.pods)]
        self._answers: dict[str, tuple[AgentStatus | None, float]] = {}
        self._began = time.time()
        self._asked = self._published = 0.0
        self._stops = 0

    def stop(self) -> None:
        """From a signal handler. Once: save a checkpoint and end. Twice: end."""
        self._stops += 1

    def drain(self) -> None:
        """Save a checkpoint and end; no more than that however often it is asked."""
        self._stops = max(self._stops, 1)

    def run(self) -> Outcome:
        """Until the job is done, has failed or was stopped. No process is left then."""
        try:
            for pod in self._pods:
                pod.start()
            while not self._stops:
                decision = decide(self._job.recovery, observe(self._looks(), self._table, self._history))
                self._show()
                if outcome := self._act(decision):
                    return outcome
                time.sleep(LOOK_SECONDS)
            return self._drain()
        finally:
            for pod in self._pods:
                pod.kill()

    def _looks(self) -> list[PodLook]:
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            for pod in self._pods:
                self._ask(pod)
        return [self._look(pod) for pod in self._pods]

    def _ask(self, pod: PodProcess) -> None:
        if pod.preparing or pod.pid is None:
            return
        if status := ask(pod.address):
            self._answers[pod.name] = (status, time.monotonic())

    def _look(self, pod: PodProcess) -> PodLook:
        code = pod.poll()
        if code is not None:
            return PodLook(pod.name, ended=True, exit_code=code, error=pod.error() if code else "")
        status, answered = self._answers.get(pod.name, (None, 0.0))
        silent = time.monotonic() - max(answered, pod.started)
        readable = time.monotonic() - max(self._published, pod.started)
        return PodLook(pod.name, preparing=pod.preparing, status=status, silent_seconds=silent, table_seconds=readable)

    def _act(self, decision: Decision) -> Outcome | None:
        self._history = decision.history
        match decision.action:
            case Action.SUCCEED:
                return Outcome(ExitCode.DONE, "done")
            case Action.FAIL:
                return self._failed(decision.failure, decision.message)
            case Action.RESTART:
                self._tell(Restarting(decision.message, decision.failure))
        if decision.action is Action.PUBLISH:
            self._publish(decision.table)
        self._table = decision.table
        for pod in self._pods:
            if pod.name in decision.replace:
                self._answers.pop(pod.name, None)
                pod.start()
        return None

    def _publish(self, table: Table) -> None:
        """Files first, then the annotation, as on a cluster."""
        self._published = time.monotonic()
        ranks = self._rank_table(table.epoch)
        text = ranks.to_json()
        write_whole(self._folder / RANKS, text)
        self._folder.settle()  # from here on this run is the folder's own
        config_map = names.ranks_map(self._job.plan.job)
        self._machine.config_maps[config_map] = {names.RANKS_KEY: text}
        for pod in self._pods:
            pod.publish(config_map)
            pod.annotate(names.ANNOTATION_EPOCH, str(table.epoch))
        self._tell(Started(table.epoch, ranks.world_size, ranks.restarts))

    def _rank_table(self, epoch: int) -> RankTable:
        plan = self._job.plan
        return RankTable(
            epoch=epoch,
            job_uid=self._job.uid,
            world_size=plan.world_size,
            degrees=plan.degrees,
            master=Master(_LOCAL, free_port()),
            token=secrets.token_hex(16),
            members=tuple(_member(plan, index, pod.name) for index, pod in enumerate(self._pods)),
            restarts=self._past.restarts + self._history.restarts,
        )

    def _show(self) -> None:
        if any(pod.preparing for pod in self._pods):
            self._tell(Preparing(self._preparation()))
        for line in self._metrics.poll():
            self._tell(Stepped(line))

    def _preparation(self) -> PreparationProgress | None:
        """Of this run: what an earlier one left in the same folder is older."""
        path = self._job.prepared / "progress.json"
        try:
            if path.stat().st_mtime < self._began - 1:
                return None
            return PreparationProgress.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ContractError, UnicodeDecodeError):
            return None

    def _drain(self) -> Outcome:
        """Let all pods end by themselves within the grace period, or until a second stop."""
        self._tell(Stopping(self._job.grace_seconds))
        for pod in self._pods:
            pod.terminate()
        deadline = time.monotonic() + self._job.grace_seconds
        while any(pod.pid is not None for pod in self._pods):
            if self._stops > 1:
                return Outcome(ExitCode.TERMINATED, "at once, as asked, without saving")
            if time.monotonic() > deadline:
                late = f"without saving: that took longer than {self._job.grace_seconds:.0f} s of grace"
                return Outcome(ExitCode.TERMINATED, late)
            self._show()
            time.sleep(LOOK_SECONDS)
        return self._drained()

    def _drained(self) -> Outcome:
        seen = observe([self._look(pod) for pod in self._pods], self._table, self._history)
        self._show()
        if seen.succeeded and not any(pod.preparing for pod in self._pods):
            return Outcome(ExitCode.DONE, "done")
        asked = {None, -15, int(ExitCode.TERMINATED)}
        if (failure := seen.cause) and failure.exit_code not in asked:
            return self._failed(failure, f"{failure}, while it was to save a checkpoint")
        return Outcome(ExitCode.TERMINATED, "as asked")

    def _failed(self, failure: Failure | None, message: str) -> Outcome:
        assert failure is not None
        log = next(pod.log for pod in self._pods if pod.name == failure.pod)
        return Outcome(exit_code_of(failure), message, failure, str(log))


def exit_code_of(failure: Failure) -> int:
    """What `ringctl` says by its own exit code: the contract's, where the failure has none of them."""
    if failure.exit_code is not None and failure.exit_code in set(ExitCode) - {ExitCode.TERMINATED}:
        return failure.exit_code
    return ExitCode.APPLICATION if failure.kind == "application" else ExitCode.INFRASTRUCTURE


def _member(plan: ParallelPlan, index: int, pod: str) -> Member:
    ranks = plan.ranks_of(index)
    ring, position = plan.ring_of(ranks.start)
    return Member(pod, "localhost", _LOCAL, ranks.start, len(ranks), ring, position)


def _devices(job: LocalJob, index: int) -> tuple[str, ...] | None:
    """The pod's own GPUs, as a device plugin would hand them out."""
    count = job.pods[index].gpus
    return job.gpus[index * count : (index + 1) * count] if count else None
