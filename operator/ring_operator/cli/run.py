"""`ringctl run`: train a job on this machine, by the same plan, pods and restarts as on a cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ring_operator.cli.common import STANDARD_INPUT, Format, SetOption, load_jobs, screen, source_name
from ring_operator.cli.view import View
from ring_operator.cli.view.guard import GuardedView
from ring_operator.cli.view.json_lines import JsonView
from ring_operator.cli.view.live import LiveView
from ring_operator.cli.view.plain import PlainView
from ring_operator.cli.view.summary import FolderHome
from ring_operator.errors import refuse
from ring_operator.local.events import Outcome
from ring_operator.local.folder import FAILED, RunFolder
from ring_operator.local.job import Here, cache_folder, local_job, with_absolute_paths
from ring_operator.local.machine import find_machines, visible_gpus
from ring_operator.local.supervise import LocalJob, Supervisor
from ring_operator.plan import document
from ring_operator.plan import plan as plan_job
from ring_operator.spec import TrainingJob
from ring_worker.contract import ExitCode

_RUNS = Path("runs")
_WORKER_PACKAGES = ("torch", "numpy", "prometheus_client", "safetensors", "tokenizers", "matplotlib")


@dataclass(frozen=True, slots=True)
class Start:
    """How a folder that holds a run is taken."""

    resume: bool
    overwrite: bool
    file: str

    def take(self, folder: RunFolder, job: TrainingJob) -> None:
        """Leave the folder ready for `job`, or raise UserError with nothing changed in it."""
        if self.resume:
            folder.check_resume(job)
            return
        if self.file != STANDARD_INPUT and Path(self.file).resolve().parent == folder.path.resolve():
            remedy = "Name another folder, or go on with the run that is there: --resume."
            raise refuse("--output", f"{folder.path} is where {self.file} lies", remedy)
        if self.overwrite:
            folder.set_aside()
        else:
            folder.refuse_use()


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Manifest, YAML or JSON; - reads standard input.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="The run's folder. Default: runs/NAME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder, start over.")] = False,
    overrides: SetOption = None,
    form: Annotated[
        Format, typer.Option("-o", "--format", help="json: one object a line, for programs.")
    ] = Format.TEXT,
) -> None:
    """Train a job on this machine. Ctrl-C saves a checkpoint and ends with 143; a second one ends at once.

    The exit code is 0 when the training is done, 1 when it cannot start as asked, else that of the failure.
    """
    job = with_absolute_paths(_only_job(file, overrides), Path.cwd())
    _require_worker()
    if resume and overwrite:
        raise refuse("--resume", "cannot go with --overwrite", "Give one of them.")
    folder = RunFolder(output or _RUNS / job.name)
    folder.open()
    try:
        outcome = _run_in(folder, job, Start(resume, overwrite, file), GuardedView(_view_of(form)))
    finally:
        folder.close()
    raise typer.Exit(int(outcome.exit_code))


def _only_job(file: str, overrides: list[str] | None) -> TrainingJob:
    jobs = load_jobs(file, overrides, machine=True)
    if len(jobs) != 1:
        few = ", ".join(job.name for job in jobs)
        raise refuse("", f"{source_name(file)} holds {len(jobs)} jobs ({few})", "Run one job at a time.")
    return jobs[0]


def _require_worker() -> None:
    """The command line alone can validate and plan; training needs the packages of the worker."""
    missing = [name for name in _WORKER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "Install them: pip install 'ring-training-operator[worker]'"
        raise refuse("", f"to train here, these packages are missing: {', '.join(missing)}", remedy)


def _view_of(form: Format) -> View:
    if form is Format.JSON:
        return JsonView(typer.echo)
    console = screen()
    return LiveView(console) if console.is_terminal else PlainView(console)


def _run_in(folder: RunFolder, job: TrainingJob, start: Start, view: GuardedView) -> Outcome:
    gpus = visible_gpus(os.environ)
    plan = plan_job(job, find_machines(job.spec.workers.nodes, gpus))
    meant = folder.resumed(job) if start.resume and folder.holds_run else job
    local = local_job(meant, plan, folder, Here(gpus, cache_folder(os.environ)))
    start.take(folder, job)
    folder.write_request(job, document(plan))
    home = FolderHome(folder)
    view.begin(plan, home)
    try:
        outcome = _supervise(local, folder, view)
    finally:
        view.end()
    if folder.settle():
        outcome = _with_the_old_run_kept(outcome)
    view.finish(outcome, home)
    return outcome


def _with_the_old_run_kept(outcome: Outcome) -> Outcome:
    """A start that overwrites and fails before its first epoch leaves the folder as it was, but for its logs."""
    log = Path(outcome.log)
    log_now = str(log.parent / FAILED / log.name) if outcome.log else ""
    return replace(outcome, message=f"{outcome.message}; the run that was in the folder is kept", log=log_now)


def _supervise(local: LocalJob, folder: RunFolder, view: GuardedView) -> Outcome:
    supervisor = Supervisor(local, folder, view.tell)
    view.gone = supervisor.drain  # nobody watches: save and end, as after a Ctrl-C
    if view.is_gone:
        supervisor.drain()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        return supervisor.run()
    except OSError as error:
        return Outcome(ExitCode.INFRASTRUCTURE, f"this machine: {error}")
