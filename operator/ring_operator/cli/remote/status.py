"""`ringctl status`: the jobs of a namespace in a table, or all there is to know of one job."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ring_operator.cli.common import Format, screen
from ring_operator.cli.remote.describe import describe
from ring_operator.cli.remote.documents import event_documents, job_document, pod_documents
from ring_operator.cli.remote.follow import follow
from ring_operator.cli.remote.options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    if_allowed,
    jobs_at,
    note_on_stderr,
)
from ring_operator.cli.remote.words import columns, job_rows
from ring_operator.errors import refuse
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import EventSeen, PodSeen

AllOption = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Jobs of every namespace.")]
SomeJob = Annotated[str, typer.Argument(metavar="[JOB]", help="Name of a job. Without it: all jobs.")]


def status(
    name: SomeJob = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job to its end; the exit code is the job's.")
    ] = False,
    everywhere: AllOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Show jobs: a line each, or one job with its plan, progress, rings, conditions, pods and events."""
    jobs = jobs_at(kubeconfig, context, namespace)
    if not name:
        if wait:
            raise refuse("--wait", "needs the name of a job", "Name it: ringctl status JOB --wait")
        _show_all(jobs, everywhere, form)
    elif wait:
        raise typer.Exit(follow(jobs, jobs.get(name), form))
    else:
        _show_one(jobs, name, form)


def _show_all(jobs: Jobs, everywhere: bool, form: Format) -> None:
    found = jobs.all(everywhere)
    if form is Format.JSON:
        typer.echo(json.dumps({"jobs": [job_document(job) for job in found]}, indent=2))
        return
    console = screen()
    if not found:
        where = "any namespace" if everywhere else f"namespace {jobs.namespace}"
        console.print(f"There are no jobs in {where}.", soft_wrap=True, markup=False)
        return
    for line in columns(*job_rows(found, everywhere)):
        console.print(line, soft_wrap=True)


def _show_one(jobs: Jobs, name: str, form: Format) -> None:
    job = jobs.get(name)
    pods: list[PodSeen] = if_allowed(lambda: jobs.pods(job), [], note_on_stderr)
    events: list[EventSeen] = if_allowed(lambda: jobs.events(job), [], note_on_stderr)
    if form is Format.JSON:
        table = if_allowed(lambda: jobs.ranks(job), None, note_on_stderr)
        found = {"pods": pod_documents(pods, table), "events": event_documents(events)}
        typer.echo(json.dumps({**job_document(job), **found}, indent=2))
    else:
        describe(screen(), job, pods, events)
