"""A whole local run, with real agents and processes and a training that needs neither data nor torch."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fake_training import SAVE_EVERY
from ring_operator.local.events import Event, Outcome, Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.local.folder import RunFolder
from ring_operator.local.job import Here, local_job
from ring_operator.local.pod import Container
from ring_operator.local.supervise import LocalJob, Supervisor
from ring_operator.plan import Machines, document, plan
from ring_operator.spec import TrainingJob, load_manifest
from ring_worker.contract import ExitCode, MetricsLine, RankTable

FAKE = str(Path(__file__).parents[1] / "fake_training.py")
STEPS = 24
LONG = 500  # steps that no test waits for
MANIFEST = f"""
apiVersion: ringtraining.dev/v1alpha1
kind: RingTrainingJob
metadata: {{name: tiny}}
spec:
  model: {{architecture: {{layers: 1, hidden: 16, heads: 2, feedForward: 16}}}}
  context: {{length: 4096}}
  parallelism: {{context: 2}}
  workers:
    nodes: 2
    gpusPerNode: 0
    processesPerNode: 1
    volumes: [{{name: shared, mountPath: /checkpoints, persistentVolumeClaim: {{claimName: shared}}}}]
    terminationGracePeriodSeconds: 20
  data: {{source: {{builtin: python-stdlib}}}}
  training: {{steps: {STEPS}, batch: 1}}
  recovery: {{budget: {{application: 1, infrastructure: 5}}}}
"""


@dataclass
class Bench:
    """One run folder, the orders for its ranks, and everything that was told."""

    base: Path
    total: int = STEPS
    events: list[Event] = field(default_factory=list)
    on_step: Callable[[int], None] = lambda step: None

    @property
    def folder(self) -> Path:
        return self.base / "run"

    def order(self, who: str, text: str) -> None:
        (self.base / "orders").mkdir(exist_ok=True)
        (self.base / "orders" / who).write_text(text)

    def run(self) -> Outcome:
        folder = RunFolder(self.folder)
        folder.open()
        try:
            job = tiny_job(self.total)
            planned = plan(job, Machines(nodes=2, gpus_per_node=0, cpus_per_node=1))
            folder.write_request(job, document(planned))
            local = local_job(job, planned, folder, Here((), self.base / "cache"))
            self.supervisor = Supervisor(with_fake_commands(local, self.base / "orders"), folder, self._told)
            return self.supervisor.run()
        finally:
            folder.close()

    def steps(self) -> list[int]:
        return [line.step for line in self.lines()]

    def lines(self) -> list[MetricsLine]:
        return [MetricsLine.from_json(text) for text in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def _told(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Stepped):
            self.on_step(event.line.step)


def tiny_job(steps: int) -> TrainingJob:
    return load_manifest(MANIFEST, overrides=[f"training.steps={steps}"])[0]


def with_fake_commands(job: LocalJob, orders: Path) -> LocalJob:
    """The rendered pods, with the programs inside prepare and agent exchanged."""

    def changed(container: Container, command: tuple[str, ...]) -> Container:
        return dataclasses.replace(container, command=command, environment=(*container.environment, told))

    told = ("FAKE_ORDERS", str(orders))
    pods = tuple(
        dataclasses.replace(
            pod,
            init_containers=tuple(changed(c, (sys.executable, FAKE, "prepare")) for c in pod.init_containers),
            containers=tuple(changed(c, (*c.command, "--", sys.executable, FAKE, "train")) for c in pod.containers),
        )
        for pod in job.pods
    )
    return dataclasses.replace(job, pods=pods)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_that_nothing_disturbs(bench: Bench) -> None:
    assert bench.run().exit_code == ExitCode.DONE
    assert bench.steps() == list(range(1, STEPS + 1))
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1]
    assert [e.line.step for e in bench.told(Stepped) if isinstance(e, Stepped)] == bench.steps()
    assert any(isinstance(e, Preparing) and e.progress and e.progress.files == 3 for e in bench.events)
    assert sorted(p.name for p in (bench.folder / "logs").iterdir()) == [
        "tiny-0.agent.log",
        "tiny-0.prepare.log",
        "tiny-1.agent.log",
        "tiny-1.prepare.log",
    ]


@pytest.mark.parametrize("rank, order", [("0", "8 kill"), ("1", "8 exit 70 a fault"), ("1", "8 kill-agent")])
def test_a_death_on_the_way_costs_an_epoch_and_no_step(bench: Bench, rank: str, order: str) -> None:
    bench.order(rank, order)
    assert bench.run().exit_code == ExitCode.DONE
    assert bench.steps() == list(range(1, STEPS + 1))
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1, 2]
    last_of_first = max(line.step for line in bench.lines() if line.epoch == 1)
    assert last_of_first % SAVE_EVERY == 0
    assert json.loads((bench.folder / "report.json").read_text()) == {"restarts": 1}


def test_what_cannot_be_mended_ends_the_job_with_its_own_code_and_words(bench: Bench) -> None:
    bench.order("1", "8 exit 65 the shards are torn")
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.CORRUPT_DATA
    assert outcome.failure is not None
    assert outcome.failure.error.endswith("the shards are torn")
    assert outcome.log.endswith("logs/tiny-1.agent.log")
    assert not bench.told(Restarting)


def test_a_fault_that_comes_again_ends_the_job_when_its_budget_is_spent(bench: Bench) -> None:
    bench.order("1", "8 exit 70 always the same")
    outcome = bench.run()
    assert (outcome.exit_code, len(bench.told(Restarting))) == (70, 1)
    assert "spec.recovery.budget.application: 1" in outcome.message


def test_a_failed_preparation_ends_the_job_before_any_rank_starts(bench: Bench) -> None:
    bench.order("prepare", "0 exit 65 bad.txt is not UTF-8")
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.CORRUPT_DATA
    assert "bad.txt" in (outcome.failure.error if outcome.failure else "")
    assert outcome.log.endswith(".prepare.log")
    assert not bench.told(Started)


def test_a_stop_saves_and_the_next_start_goes_on(bench: Bench) -> None:
    bench.total = LONG
    bench.on_step = lambda step: bench.supervisor.stop() if step == 12 else None
    assert bench.run().exit_code == ExitCode.TERMINATED
    stopped_at = bench.steps()[-1]
    assert 12 <= stopped_at < LONG
    assert RunFolder(bench.folder).last_checkpoint() == stopped_at
    bench.total = stopped_at + 5
    bench.on_step = lambda step: None
    assert bench.run().exit_code == ExitCode.DONE
    assert [(line.step, line.epoch) for line in bench.lines()] == [
        (step, 1 if step <= stopped_at else 2) for step in range(1, bench.total + 1)
    ]
    assert RankTable.from_json((bench.folder / "ranks.json").read_text()).epoch == 2


def test_a_second_stop_does_not_wait(bench: Bench) -> None:
    def stop(step: int) -> None:
        if step == 12:
            bench.supervisor.stop()
            threading.Timer(0.5, bench.supervisor.stop).start()

    bench.total = LONG
    bench.order("1", "3 deaf")
    bench.on_step = stop
    outcome = bench.run()
    assert outcome.exit_code == ExitCode.TERMINATED
    assert "at once" in outcome.message
    assert len(bench.told(Stopping)) == 1


def test_restarts_are_counted_on_over_starts(bench: Bench) -> None:
    bench.total = LONG
    bench.order("1", "3 kill")
    bench.on_step = lambda step: bench.supervisor.stop() if step == 30 else None
    bench.run()
    bench.total = bench.steps()[-1] + 5
    bench.on_step = lambda step: None
    bench.order("1", f"{bench.total - 3} kill")
    assert bench.run().exit_code == ExitCode.DONE
    assert json.loads((bench.folder / "report.json").read_text()) == {"restarts": 2}
    assert [e.epoch for e in bench.told(Started) if isinstance(e, Started)] == [1, 2, 3, 4]


def test_nothing_that_was_started_is_left(bench: Bench) -> None:
    bench.order("1", "8 exit 64 no")
    bench.run()
    marker = str(bench.base)
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if marker in words and int(process.name) != os.getpid():
            left.append(process.name)
    assert left == []
