"""One job for a person: how it is, what it is planned to be, what happened to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ring_operator.cli.remote import words
from ring_operator.cli.remote.follow import waiting_for
from ring_operator.cli.view.summary import printable
from ring_operator.observe.pods import seconds_of
from ring_operator.remote.objects import EventSeen, JobSeen, PodSeen
from ring_operator.status.document import JobStatus, PlanStatus, Progress

_BAR_WIDTH = 40
_RINGS_SHOWN = 8
_PODS_SHOWN = 32
_EVENTS_SHOWN = 10


def describe(console: Console, job: JobSeen, pods: Sequence[PodSeen], events: Sequence[EventSeen]) -> None:
    console.print(headline(job), soft_wrap=True)
    for label, value in (*facts(job), *_rings(job)):
        console.print(_row(label, value), soft_wrap=True)
    for title, lines in (("conditions", _conditions(job)), ("pods", _pods(pods)), ("events", _events(events))):
        if lines:
            console.print(Text(f"  {title}", "dim"))
        for line in lines:
            console.print(Text.assemble("    ", line), soft_wrap=True)


def _row(label: str, value: Text | Table) -> RenderableType:
    """A line of text is never cut or broken; only a bar needs a grid."""
    title = Text(f"  {label:<14}", "dim")
    if isinstance(value, Text):
        return Text.assemble(title, value)
    row = Table.grid()
    row.add_row(title, value)
    return row


def headline(job: JobSeen) -> Text:
    more = "" if job.is_current or not job.status.state else "  (the operator has not seen its newest spec yet)"
    return Text.assemble((job.name, "bold"), f"  namespace {job.namespace}  ", words.state(job.state), more)


def facts(job: JobSeen) -> Iterator[tuple[str, Text | Table]]:
    """What `top` shows, too."""
    status = job.status
    if job.state not in ("Running", "Succeeded", "Failed", "Invalid"):
        yield "waits", Text(printable(waiting_for(job)))
    if status.plan:
        yield "plan", Text(_plan(status.plan))
    if status.progress:
        yield from _progress(status.progress)
    yield from _troubles(status)
    yield "age", Text(_times(job))


def _rings(job: JobSeen) -> Iterator[tuple[str, Text]]:
    rings = job.status.rings
    for i, ring in enumerate(rings[:_RINGS_SHOWN]):
        yield (
            "rings" if i == 0 else "",
            Text(f"{ring.index}: {words.ring_nodes(ring)}{_figures(ring.tokens_per_second, ring.efficiency)}"),
        )
    if len(rings) > _RINGS_SHOWN:
        yield "", Text(f"and {len(rings) - _RINGS_SHOWN} rings more")


def _plan(plan: PlanStatus) -> str:
    degrees = [(name, getattr(plan, name)) for name in ("pipeline", "data", "context", "tensor")]
    shape = " x ".join(f"{name} {value}" for name, value in degrees if value > 1 or name in ("data", "context"))
    heads = f" (ulysses {plan.ulysses})" if plan.ulysses > 1 else ""
    return f"{shape}{heads} = {plan.world_size:,} ranks on {plan.nodes:,} nodes x {plan.ranks_per_node}"


def _progress(progress: Progress) -> Iterator[tuple[str, Text | Table]]:
    if progress.step >= 0:
        said = f"{progress.step:,} of {progress.total_steps:,}{words.left(progress)}"
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, progress.total_steps), completed=progress.step, width=_BAR_WIDTH)
        grid.add_row(bar, Text(said))
        yield "step", grid
    if progress.loss is not None:
        yield "loss", Text(f"{progress.loss:.3f}")
    if speed := _figures(progress.tokens_per_second, progress.efficiency).strip(" ,"):
        yield "speed", Text(speed)
    if progress.last_checkpoint_step >= 0:
        yield "checkpoint", Text(f"of step {progress.last_checkpoint_step:,}")


def _figures(tokens_per_second: float | None, efficiency: float | None) -> str:
    rate = f", {tokens_per_second:,.0f} tokens/s" if tokens_per_second is not None else ""
    return rate + (f", ring efficiency {efficiency:.2f}" if efficiency is not None else "")


def _troubles(status: JobStatus) -> Iterator[tuple[str, Text | Table]]:
    if status.restarts.total:
        yield "restarts", Text(words.restarts(status.restarts), "yellow")
    if status.last_failure:
        yield "last failure", Text(printable(status.last_failure), "yellow")
    for i, node in enumerate(status.excluded_nodes):
        yield "avoided" if i == 0 else "", Text(f"node {node.node} until {node.until}: {node.reason}", "yellow")


def _times(job: JobSeen) -> str:
    status = job.status
    parts = [f"created {words.ago(job.created)} ago"]
    if status.start_time:
        parts.append(f"started {words.ago(seconds_of(status.start_time))} ago")
    if status.completion_time:
        parts.append(f"ended {words.ago(seconds_of(status.completion_time))} ago")
    return ", ".join(parts)


def _conditions(job: JobSeen) -> list[Text]:
    rows = [[c.type, c.status, c.reason, printable(" ".join(c.message.split()))] for c in job.status.conditions]
    return words.columns(["CONDITION", "STATUS", "REASON", "MESSAGE"], rows) if rows else []


def _pods(pods: Sequence[PodSeen]) -> list[Text]:
    rows = [[p.facts.name, p.phase, p.facts.node or words.NOTHING, printable(_trouble(p))] for p in pods[:_PODS_SHOWN]]
    lines = words.columns(["POD", "PHASE", "NODE", ""], rows) if rows else []
    more = len(pods) - _PODS_SHOWN
    return [*lines, Text(f"and {more} pods more: ringctl status JOB -o json has all")] if more > 0 else lines


def _trouble(pod: PodSeen) -> str:
    facts = pod.facts
    if facts.trouble or facts.reason:
        return facts.trouble or facts.reason
    return f"exit code {facts.exit_code}" if facts.exit_code else ""


def _events(events: Sequence[EventSeen]) -> list[Text]:
    rows = [[words.ago(e.last), e.type, e.reason, printable(_said(e))] for e in events[-_EVENTS_SHOWN:]]
    return words.columns(["AGE", "TYPE", "REASON", "EVENT"], rows) if rows else []


def _said(event: EventSeen) -> str:
    times = f" ({event.count} times)" if event.count > 1 else ""
    return " ".join(event.message.split()) + times
