"""`ringctl top`: jobs, or one job by ring and pod, kept up to date on a terminal; once, where there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ring_operator.cli.common import Format, screen
from ring_operator.cli.remote import words
from ring_operator.cli.remote.describe import facts, headline
from ring_operator.cli.remote.documents import job_document, pod_documents
from ring_operator.cli.remote.options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    if_allowed,
    jobs_at,
)
from ring_operator.cli.remote.status import AllOption, SomeJob
from ring_operator.cli.view.summary import printable
from ring_operator.remote.errors import UnreachableError
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen, PodSeen
from ring_worker.contract import Member, RankTable

REFRESH_SECONDS = 2.0


def top(
    name: SomeJob = "",
    everywhere: AllOption = False,
    once: Annotated[bool, typer.Option("--once", help="Print once, on a terminal, too.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    form: OutputOption = Format.TEXT,
) -> None:
    """Show how fast jobs train: a line a job, or the rings and pods of one. Ctrl-C ends it."""
    jobs = jobs_at(kubeconfig, context, namespace)
    if form is Format.JSON:
        typer.echo(json.dumps(_document(jobs, name, everywhere), indent=2))
        return
    console = screen()

    def draw() -> RenderableType:
        return _one(jobs, name) if name else _all(jobs, everywhere)

    if console.is_terminal and not once:
        _keep_drawing(console, draw)
    else:
        console.print(draw(), soft_wrap=True)


def _keep_drawing(console: Console, draw: Callable[[], RenderableType]) -> None:
    """The first look may fail; later ones keep the picture and say why it is old."""
    picture = draw()
    with Live(picture, console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(picture, refresh=True)
                time.sleep(REFRESH_SECONDS)
                picture = _redrawn(picture, draw)
        except KeyboardInterrupt:
            return


def _redrawn(picture: RenderableType, draw: Callable[[], RenderableType]) -> RenderableType:
    try:
        return draw()
    except UnreachableError as error:
        if not error.again:
            raise
        last = picture.renderables[0] if isinstance(picture, Stale) else picture
        return Stale(last, Text(f"trying again: {error.faults[0].message}", "yellow"))


class Stale(Group):
    """An old picture, and why it is old."""


def _document(jobs: Jobs, name: str, everywhere: bool) -> dict[str, object]:
    if not name:
        return {"jobs": [job_document(job) for job in jobs.all(everywhere)]}
    job = jobs.get(name)
    pods, table = _pods_and_ranks(jobs, job)
    return {**job_document(job), "pods": pod_documents(pods, table)}


def _pods_and_ranks(jobs: Jobs, job: JobSeen) -> tuple[list[PodSeen], RankTable | None]:
    return if_allowed(lambda: jobs.pods(job), []), if_allowed(lambda: jobs.ranks(job), None)


def _all(jobs: Jobs, everywhere: bool) -> RenderableType:
    found = jobs.all(everywhere)
    if not found:
        return Text(f"There are no jobs in {'any namespace' if everywhere else f'namespace {jobs.namespace}'}.")
    return Group(*_unbroken(words.columns(*_fastest_first(found, everywhere))))


def _fastest_first(found: Sequence[JobSeen], everywhere: bool) -> tuple[list[str], list[list[str]]]:
    def rate(job: JobSeen) -> float:
        progress = job.status.progress
        running = job.state == "Running" and progress is not None
        return progress.tokens_per_second or 0.0 if running and progress else -1.0

    return words.job_rows(sorted(found, key=rate, reverse=True), everywhere)


def _one(jobs: Jobs, name: str) -> RenderableType:
    job = jobs.get(name)
    pods, table = _pods_and_ranks(jobs, job)
    grid = Table.grid(padding=(0, 2))
    for label, value in facts(job):
        grid.add_row(Text(f"  {label}", "dim"), value)
    rings = [
        [
            str(r.index),
            words.number(r.tokens_per_second, ",.0f"),
            words.number(r.efficiency, ".2f"),
            words.ring_nodes(r),
        ]
        for r in job.status.rings
    ]
    parts: list[RenderableType] = [headline(job), grid]
    if rings:
        parts += ["", *_unbroken(words.columns(["RING", "TOKENS/S", "EFFICIENCY", "NODES"], rings))]
    if pods:
        parts += ["", *_unbroken(words.columns(_POD_HEADER, [_pod_row(pod, table) for pod in pods]))]
    return Group(*parts)


_POD_HEADER = ["POD", "PHASE", "NODE", "RANKS", "RING", "POSITION", "REPLACED", ""]


def _pod_row(pod: PodSeen, table: RankTable | None) -> list[str]:
    facts, member = pod.facts, table.member(pod.facts.name) if table else None
    place = _place(member) if member else [words.NOTHING] * 3
    return [facts.name, pod.phase, facts.node or words.NOTHING, *place, str(facts.attempt), printable(facts.trouble)]


def _place(member: Member) -> list[str]:
    last = member.first_rank + member.ranks - 1
    ranks = str(last) if member.ranks == 1 else f"{member.first_rank}-{last}"
    return [ranks, str(member.ring), str(member.position)]


def _unbroken(lines: Sequence[Text]) -> Sequence[Text]:
    """Cut at the edge of a terminal, and whole elsewhere."""
    for line in lines:
        line.no_wrap = True
    return lines
