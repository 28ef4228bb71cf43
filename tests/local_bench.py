"""One local run for tests: real agents and processes, a training that needs neither data nor torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ring_operator.local.events import Event, Outcome, Stepped
from ring_operator.local.folder import RunFolder
from ring_operator.local.job import Here, local_job
from ring_operator.local.pod import Container
from ring_operator.local.supervise import LocalJob, Supervisor
from ring_operator.plan import Machines, document, plan
from ring_operator.spec import TrainingJob, load_manifest
from ring_worker.contract import MetricsLine

FAKE = str(Path(__file__).parent / "fake_training.py")
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
    overrides: tuple[str, ...] = ()
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
            job = tiny_job(self.total, *self.overrides)
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


def tiny_job(steps: int, *overrides: str) -> TrainingJob:
    return load_manifest(MANIFEST, overrides=[f"training.steps={steps}", *overrides])[0]


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
