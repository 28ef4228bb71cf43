"""`ringctl suspend`, `resume`, `restart`, `delete`: ask one thing of a job, and with `--wait` see that it is so."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.text import Text

from ring_operator import names
from ring_operator.cli.common import Format, screen
from ring_operator.cli.remote.follow import outcome_of, waiting_for
from ring_operator.cli.remote.options import (
    ContextOption,
    Exit,
    JobArgument,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    WaitOption,
    jobs_at,
)
from ring_operator.errors import refuse
from ring_operator.local.events import Outcome
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen


@dataclass(frozen=True, slots=True)
class Change:
    """`done`: the word for it. `look`: the job now; None: it is gone. `reached`: whether it is so.

    `ended`: how else the waiting may end. `says`: what is so meanwhile.
    """

    job: JobSeen
    done: str
    look: Callable[[], JobSeen | None]
    reached: Callable[[JobSeen | None], bool]
    ended: Callable[[JobSeen | None], Outcome | None] = outcome_of
    says: Callable[[JobSeen], str] = lambda seen: f"{seen.state}: {waiting_for(seen)}"
    changed: bool = True


def suspend(
    name: JobArgument,
    wait: WaitOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Let a job save a checkpoint and give its nodes back. With --wait, until its pods are gone."""
    jobs = jobs_at(kubeconfig, context, namespace)
    job = jobs.get(name)
    if job.has_ended:
        raise refuse("", f"job {name} has ended ({job.state}); there is nothing to suspend")
    after = job if job.suspend else jobs.merge(name, {"spec": {"suspend": True}})
    change = Change(after, "suspended", lambda: jobs.find(name), _is_suspended, changed=not job.suspend)
    raise typer.Exit(_see_through(jobs, change, wait, form))


def resume(
    name: JobArgument,
    wait: WaitOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Let a suspended job go on from its checkpoint. With --wait, until its ranks run."""
    jobs = jobs_at(kubeconfig, context, namespace)
    job = jobs.get(name)
    after = jobs.merge(name, {"spec": {"suspend": False}}) if job.suspend else job
    change = Change(after, "resumed", lambda: jobs.find(name), _runs, changed=job.suspend)
    raise typer.Exit(_see_through(jobs, change, wait, form))


def restart(
    name: JobArgument,
    wait: WaitOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Start a job's ranks again from the newest checkpoint; a failed job anew, with fresh budgets.

    With --wait, until its ranks run.
    """
    jobs = jobs_at(kubeconfig, context, namespace)
    job = jobs.get(name)
    if job.holds("Succeeded"):
        remedy = f"To train it again: ringctl delete {name}, and submit it anew."
        raise refuse("", f"job {name} has succeeded; there is nothing to restart", remedy)
    if job.suspend:
        raise refuse("", f"job {name} is suspended", f"Let it go on: ringctl resume {name}")
    asked = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    after = jobs.merge(name, {"metadata": {"annotations": {names.ANNOTATION_RESTART: asked}}})

    def obeyed(seen: JobSeen | None) -> bool:
        return seen is None or seen.status.restart_request == asked

    change = Change(
        after,
        "asked to restart",
        lambda: jobs.find(name),
        reached=lambda seen: obeyed(seen) and _runs(seen),
        ended=lambda seen: outcome_of(seen) if obeyed(seen) else None,
    )
    raise typer.Exit(_see_through(jobs, change, wait, form))


def delete(
    name: JobArgument,
    wait: WaitOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Delete a job with its pods; checkpoints stay on their volume. With --wait, until job and pods are gone."""
    jobs = jobs_at(kubeconfig, context, namespace)
    job = jobs.get(name)
    jobs.delete(job)

    def look() -> JobSeen | None:
        """The job as long as anything of it is there."""
        seen = jobs.find(name)
        if seen is not None and seen.uid == job.uid:
            return seen
        return job if jobs.pods(job) else None

    change = Change(
        job,
        "deleted",
        look,
        reached=lambda seen: seen is None,
        ended=lambda seen: None,
        says=lambda seen: "it and its pods are on their way out",
    )
    raise typer.Exit(_see_through(jobs, change, wait, form))


def _is_suspended(seen: JobSeen | None) -> bool:
    """Its pods are gone, too."""
    return seen is not None and seen.status.state == "Suspended"


def _runs(seen: JobSeen | None) -> bool:
    """Every rank of the wanted spec is at work, or done already."""
    return seen is not None and seen.is_current and (seen.status.state == "Running" or seen.holds("Succeeded"))


def _see_through(jobs: Jobs, change: Change, wait: bool, form: Format) -> int:
    """Say what was done; wait where that was asked. The exit code."""
    console = screen(stderr=form is Format.JSON)  # on the other side of a program's output
    if form is Format.TEXT:
        said = change.done if change.changed else f"unchanged: it was {change.done} already"
        console.print(Text.assemble((change.job.name, "bold"), f" {said}"), soft_wrap=True)
    code = _wait(jobs, change, console) if wait else Exit.OK
    if form is Format.JSON:
        fields = {"namespace": change.job.namespace, "name": change.job.name, "action": change.done}
        typer.echo(json.dumps({**fields, "changed": change.changed, "reached": wait and code is Exit.OK}, indent=2))
    return code


def _wait(jobs: Jobs, change: Change, console: Console) -> Exit:
    """Until it is so, or cannot be any more."""
    said = ""
    for seen in jobs.poll(change.look, lambda error: console.print(Text(f"  trying again: {error}", "yellow"))):
        if change.reached(seen):
            console.print("  it is so" if said else "  it is so already", style="dim")
            return Exit.OK
        if outcome := change.ended(seen):
            console.print(Text(f"  it has ended: {outcome.message}"), soft_wrap=True)
            return Exit(outcome.exit_code)
        if seen is not None and (message := change.says(seen)) != said:
            said = message
            console.print(Text(f"  {message}", "dim"), soft_wrap=True)
    raise AssertionError("polling never ends by itself")
