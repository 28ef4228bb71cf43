"""`ringctl submit`: check a manifest here, then apply it to a cluster; with `--wait`, follow the job to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from ring_operator.cli.common import Format, SetOption, check_file, plan_faults, screen, source_name
from ring_operator.cli.remote.follow import follow
from ring_operator.cli.remote.options import ContextOption, KubeconfigOption, NamespaceOption, OutputOption, jobs_at
from ring_operator.errors import Fault, UserError, refuse
from ring_operator.remote import RefusedError
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen
from ring_operator.spec import placed
from ring_operator.spec.documents import Document

Raw = dict[str, Any]
_KEPT = ("name", "namespace", "labels", "annotations")  # of metadata; the rest is the API server's
_FIXED = "may not be changed while the job runs"


@dataclass(frozen=True, slots=True)
class Submitted:
    """`result`: created | changed | unchanged."""

    job: JobSeen
    result: str


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Manifest, YAML or JSON; - reads standard input.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job to its end; the exit code is the job's.")
    ] = False,
    overrides: SetOption = None,
    force: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that others have set, such as kubectl edit.")
    ] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Apply a manifest's jobs to a cluster, after all of it was checked here.

    Exit codes: 0, 1 refused, 3 the job failed (--wait), 4 not found, 5 no connection or no right, 130 Ctrl-C.
    """
    documents = checked_documents(file, overrides or [], only_one=wait)
    jobs = jobs_at(kubeconfig, context, namespace)
    submitted = [apply(jobs.within(_namespace(d, namespace)), d, force) for d in documents]
    _print(submitted, form, wait)
    if wait:
        job = submitted[0].job
        raise typer.Exit(follow(jobs.within(job.namespace), job, form))


def checked_documents(file: str, overrides: Sequence[str], only_one: bool) -> list[Document]:
    """Raises UserError with every fault of every document, of the plan too."""
    checked = check_file(file, overrides)
    if faults := (*checked.faults, *plan_faults(checked, auto=True)):
        raise UserError(faults)
    if only_one and len(checked.jobs) != 1:
        few = ", ".join(job.name for job in checked.jobs)
        raise refuse("--wait", f"{source_name(file)} holds {len(checked.jobs)} jobs ({few})", "Wait for one at a time.")
    return list(checked.documents)


def apply(jobs: Jobs, document: Document, force: bool) -> Submitted:
    """Server-side apply. Raises RemoteError, with the lines of the fields that it is about."""
    manifest = as_applied(document.value, jobs.namespace)
    before = jobs.find(manifest["metadata"]["name"])
    try:
        after = jobs.apply(manifest, force)
    except RefusedError as error:
        raise RefusedError([_in_words(fault, document) for fault in error.faults]) from None
    if before is None or before.uid != after.uid:
        return Submitted(after, "created")
    return Submitted(after, "unchanged" if _said(before) == _said(after) else "changed")


def as_applied(value: Raw, namespace: str) -> Raw:
    """Only what a person writes: what is not in it keeps the API server's defaults, or what others have set."""
    metadata = {key: part for key, part in value["metadata"].items() if key in _KEPT and part is not None}
    kept = {key: _without_nulls(value[key]) for key in ("apiVersion", "kind", "spec")}
    return {**kept, "metadata": {**metadata, "namespace": namespace}}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _namespace(document: Document, asked: str | None) -> str | None:
    """The manifest's own, else the one that was asked for. Raises UserError where they differ."""
    written = document.value["metadata"].get("namespace")
    if written and asked and written != asked:
        fault = Fault("metadata.namespace", f"{written}, but --namespace is {asked}", "Give one of them.")
        raise UserError([placed(fault, document)])
    return written or asked


def _said(job: JobSeen) -> tuple[Any, ...]:
    metadata = job.raw.get("metadata") or {}
    return job.raw.get("spec"), metadata.get("labels"), metadata.get("annotations")


def _in_words(fault: Fault, document: Document) -> Fault:
    if _FIXED in fault.message:
        message = _FIXED
        name = document.value["metadata"]["name"]
        remedy = f"ringctl suspend {name} --wait, submit again, ringctl resume {name}; or submit under another name."
        return placed(Fault(fault.path, message, remedy), document)
    return placed(fault, document)


def _print(submitted: Sequence[Submitted], form: Format, waits: bool) -> None:
    if form is Format.JSON:
        found = [
            {"namespace": s.job.namespace, "name": s.job.name, "uid": s.job.uid, "result": s.result} for s in submitted
        ]
        typer.echo(
            json.dumps({"event": "submitted", **found[0]} if waits else {"jobs": found}, indent=None if waits else 2)
        )
        return
    console = screen()
    for each in submitted:
        job = each.job
        console.print(Text.assemble((job.name, "bold"), f" {each.result} in namespace {job.namespace}"), soft_wrap=True)
        for note in _notes(each, waits):
            console.print(Text(f"  {note}", "yellow" if "suspended" in note else ""), soft_wrap=True)


def _notes(submitted: Submitted, waits: bool) -> Iterator[str]:
    job = submitted.job
    where = f"{job.name} -n {job.namespace}"
    if job.has_ended and submitted.result != "created":
        yield f"It has ended ({job.state}): ringctl restart {where}, or ringctl delete {where} and submit again"
    elif job.suspend:
        yield f"It is suspended: ringctl resume {where}"
    elif not waits:
        yield f"ringctl status {where} --wait follows it"
