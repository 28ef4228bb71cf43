"""`ringctl logs`: what the agents and their ranks print: of all pods, of one, or of one rank wherever it runs."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from ring_operator.cli.remote.log_lines import Selection
from ring_operator.cli.remote.log_stream import Line, PodStream
from ring_operator.cli.remote.options import (
    ContextOption,
    Exit,
    JobArgument,
    KubeconfigOption,
    NamespaceOption,
    jobs_at,
    note_on_stderr,
)
from ring_operator.errors import Fault, UserError, refuse
from ring_operator.remote import NotFoundError, UnreachableError
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen, PodSeen

FOLLOWED_MAX = 32  # pods, each over a connection of its own


def logs(
    name: JobArgument,
    rank: Annotated[int | None, typer.Option("--rank", min=0, metavar="N", help="Of this rank alone.")] = None,
    pod: Annotated[int | None, typer.Option("--pod", min=0, metavar="I", help="Of the pod with this number.")] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as more is printed, until the job ends.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, metavar="N", help="The last N lines of each pod.")
    ] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Of the data preparation.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print the logs of a job's pods: of all, one after the other, of one pod, or of one rank wherever it runs."""
    if rank is not None and (pod is not None or prepare):
        raise refuse("--rank", f"cannot go with {'--pod' if pod is not None else '--prepare'}", "Give one of them.")
    jobs = jobs_at(kubeconfig, context, namespace)
    job = jobs.get(name)
    selection = Selection(tail=tail, rank=rank, prepare=prepare)
    chosen = _chosen(jobs, job, selection, pod)
    several = len(chosen) > 1
    if follow and len(chosen) > FOLLOWED_MAX:
        message = f"{len(chosen)} pods are too many to follow at once (at most {FOLLOWED_MAX})"
        raise refuse("--follow", message, "Choose one with --pod I or --rank N.")
    streams = [PodStream(jobs, job, each, selection, note_on_stderr) for each in chosen]
    _print(_merged(streams) if follow else _in_turn(streams), several)


def _chosen(jobs: Jobs, job: JobSeen, selection: Selection, index: int | None) -> list[PodSeen]:
    """Raises NotFoundError where there is none."""
    pods = jobs.pods(job)
    if not pods:
        raise NotFoundError([Fault("", f"job {job.name} has no pods ({job.state})")])
    if selection.rank is not None:
        return [_pod_of_rank(jobs, job, pods, selection.rank)]
    if index is None:
        return pods
    found = [pod for pod in pods if pod.facts.index == index]
    if not found:
        raise NotFoundError([Fault("--pod", f"there is no pod {index}", f"There are {_span(pods)}.")])
    return found


def _span(pods: list[PodSeen]) -> str:
    indices = [pod.facts.index for pod in pods]
    return f"{indices[0]} to {indices[-1]}" if len(indices) > 1 else f"pod {indices[0]}"


def _pod_of_rank(jobs: Jobs, job: JobSeen, pods: list[PodSeen], rank: int) -> PodSeen:
    table = jobs.ranks(job)
    if table is None:
        remedy = "Its pods are still on their way; ringctl status tells. --pod I shows a pod."
        raise NotFoundError([Fault("--rank", "no ranks were started yet", remedy)])
    if rank >= table.world_size:
        raise NotFoundError([Fault("--rank", f"there is no rank {rank}", f"There are 0 to {table.world_size - 1}.")])
    member = next(m for m in table.members if m.first_rank <= rank < m.first_rank + m.ranks)
    found = next((pod for pod in pods if pod.facts.name == member.pod), None)
    if found is None:
        remedy = "Its successor has not started its ranks yet; wait for the next epoch."
        raise NotFoundError([Fault("--rank", f"rank {rank} ran in pod {member.pod}, which is gone", remedy)])
    return found


def _in_turn(streams: Iterable[PodStream]) -> Iterator[Line]:
    """One whole log after the other. A node that does not answer costs its pod's log, and is raised at the end."""
    failed: list[UserError] = []
    for stream in streams:
        try:
            yield from stream.history()
        except UnreachableError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _merged(streams: list[PodStream]) -> Iterator[Line]:
    """Lines of all pods as they come, each read by a thread of its own; an error of one is the end of all."""
    arrived: queue.Queue[Line | UserError | None] = queue.Queue(maxsize=1000)

    def read(stream: PodStream) -> None:
        try:
            for line in stream.followed():
                arrived.put(line)
            arrived.put(None)
        except UserError as error:
            arrived.put(error)

    for stream in streams:
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    left = len(streams)
    while left:
        item = arrived.get()
        if item is None:
            left -= 1
        elif isinstance(item, UserError):
            raise item
        else:
            yield item


def _print(lines: Iterator[Line], several: bool) -> None:
    try:
        for pod, text in lines:
            sys.stdout.write(f"[{pod}] {text}\n" if several else f"{text}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:  # whoever read has enough
        raise typer.Exit(Exit.OK) from None
