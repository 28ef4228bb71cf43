"""A job's status as it changes -> the events that `ringctl run` shows, to the job's end.

`Teller` is pure: looks go in, events come out. Around it the loop reads the job, through broken connections and
restarts of the API server. Ctrl-C ends the watching, never the job.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.text import Text

from ring_operator.cli.common import Format, screen
from ring_operator.cli.remote.home import ClusterHome
from ring_operator.cli.remote.options import Exit
from ring_operator.cli.view import View
from ring_operator.cli.view.guard import GuardedView
from ring_operator.cli.view.json_lines import JsonView
from ring_operator.cli.view.live import LiveView
from ring_operator.cli.view.plain import PlainView
from ring_operator.local.events import Advanced, Event, Outcome, Restarting, Started, Waiting
from ring_operator.plan import ParallelPlan, machines_of
from ring_operator.plan import plan as plan_job
from ring_operator.remote.errors import RemoteError
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen
from ring_operator.spec import job_of
from ring_operator.status.document import Progress

_UNSEEN_SECONDS = 15.0  # an operator that is there takes up a job at once


class Teller:
    """What is new since the look before."""

    def __init__(self) -> None:
        self._epoch = 0
        self._restarts: int | None = None
        self._progress: Progress | None = None
        self._waiting = ""

    def tell(self, job: JobSeen) -> Iterator[Event]:
        yield from self._restarted(job)
        if job.status.state in ("Starting", "Running"):
            yield from self._started(job)
        if job.status.state in ("Running", "Succeeded"):
            yield from self._advanced(job)
        elif job.status.state != "Starting" and (message := waiting_for(job)) != self._waiting:
            self._waiting = message
            yield Waiting(message)

    def _restarted(self, job: JobSeen) -> Iterator[Event]:
        total = job.status.restarts.total
        if self._restarts is not None and total > self._restarts:
            yield Restarting(job.status.last_failure or f"restart {total}")
        self._restarts = total

    def _started(self, job: JobSeen) -> Iterator[Event]:
        status = job.status
        if status.epoch > self._epoch:
            self._epoch, self._waiting = status.epoch, ""
            yield Started(status.epoch, status.plan.world_size if status.plan else 0, status.restarts.total)

    def _advanced(self, job: JobSeen) -> Iterator[Event]:
        progress, before = job.status.progress, self._progress
        if progress is None or progress.step < 0:
            return
        if before is None or (progress.step, progress.loss) != (before.step, before.loss):
            self._progress = progress
            yield Advanced(job.status.epoch, progress, job.status.rings)


def waiting_for(job: JobSeen) -> str:
    """Why the job does not train, in a line."""
    if job.deleting:
        return "the job is being deleted"
    if not job.status.state:
        if time.time() - job.created < _UNSEEN_SECONDS:
            return "waiting for the operator"
        return "no operator has taken it up yet: is one installed, and does it look after this namespace?"
    if job.status.state in ("Suspending", "Suspended"):
        return f"{job.status.state.lower()}: {_message(job, 'Suspended')}"
    for kind, wanted in (("Placed", "False"), ("Degraded", "True"), ("Running", "False")):
        condition = job.condition(kind)
        if condition is not None and condition.status == wanted and condition.message:
            return condition.message
    return job.status.state.lower()


def outcome_of(job: JobSeen | None) -> Outcome | None:
    """How the job ended, or None while it has not."""
    if job is None:
        return Outcome(Exit.NOT_FOUND, "the job was deleted")
    if job.holds("Succeeded"):
        return Outcome(Exit.OK, "done")
    if job.holds("Failed"):
        return Outcome(Exit.FAILED, _message(job, "Failed"))
    if job.status.state == "Invalid" and job.is_current:
        return Outcome(Exit.REFUSED, f"the operator cannot run it: {_message(job, 'Planned')}")
    return None


def _message(job: JobSeen, kind: str) -> str:
    condition = job.condition(kind)
    return (condition.message or condition.reason) if condition else ""


def follow(jobs: Jobs, job: JobSeen, form: Format) -> int:
    """Show the job to its end. The exit code."""
    home = ClusterHome(job)
    view = GuardedView(_view_of(form))
    outcome = outcome_of(job)
    if outcome is None:
        view.begin(_plan(job), home)
        try:
            outcome = _watch(jobs, job, view, home)
        except KeyboardInterrupt:
            view.end()
            _say_that_it_goes_on(job)
            return Exit.INTERRUPTED
        finally:
            view.end()
    if outcome is None:  # nobody reads any more
        return Exit.INTERRUPTED
    view.finish(outcome, home)
    return outcome.exit_code


def _watch(jobs: Jobs, job: JobSeen, view: GuardedView, home: ClusterHome) -> Outcome | None:
    """None: the view's reader is gone."""
    teller = Teller()
    trouble = _Trouble(view)
    for seen in jobs.follow(job.name, trouble):
        same = seen if seen is not None and seen.uid == job.uid else None  # a namesake is another job
        if same is not None:
            home.seen = same
            for event in teller.tell(same):
                view.tell(event)
        if outcome := outcome_of(same):
            return outcome
        if view.is_gone:
            return None
    return None


class _Trouble:
    """Tells of a broken connection."""

    def __init__(self, view: GuardedView) -> None:
        self._view = view

    def __call__(self, error: RemoteError) -> None:
        self._view.tell(Waiting(f"trying again: {error.faults[0].message}"))


def _plan(job: JobSeen) -> ParallelPlan:
    """As the operator plans it. Raises UserError where this version cannot read the job."""
    written = {key: job.raw.get(key) for key in ("apiVersion", "kind", "spec")}
    parsed = job_of({**written, "metadata": {"name": job.name, "namespace": job.namespace}})
    return plan_job(parsed, machines_of(parsed.spec))


def _view_of(form: Format) -> View:
    if form is Format.JSON:
        return JsonView(typer.echo)
    console = screen()
    return LiveView(console) if console.is_terminal else PlainView(console)


def _say_that_it_goes_on(job: JobSeen) -> None:
    console = Console(stderr=True, highlight=False)
    again = f"ringctl status {job.name} -n {job.namespace} --wait"
    console.print(Text(f"The job goes on; it was only no longer watched. To watch it again: {again}"), soft_wrap=True)
    sys.stderr.flush()
