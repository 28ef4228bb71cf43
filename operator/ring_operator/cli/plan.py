"""`ringctl plan`: degrees, ranks, rings and work of a job, before anything runs."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.text import Text

from ring_operator.cli.common import SetOption, load_jobs, screen
from ring_operator.cli.network import NodesOption, network
from ring_operator.cli.placed import Placed, document_of, gpus_of, html_of, placed, rows_of, svg_of
from ring_operator.cli.remote.options import ContextOption, KubeconfigOption
from ring_operator.errors import refuse
from ring_operator.local.machine import find_machines, visible_gpus
from ring_operator.plan import LayerGroup, Machines, ParallelPlan, Ring, document, machines_of
from ring_operator.plan import plan as plan_job
from ring_operator.remote.kubeconfig import Target
from ring_operator.spec import JobSpec, TrainingJob
from ring_worker.contract import Degrees

_RINGS_SHOWN = 8
_RANKS_SHOWN = 16


class PlanFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    SVG = "svg"
    HTML = "html"


def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Manifest, YAML or JSON; - reads standard input.")],
    output: Annotated[PlanFormat, typer.Option("-o", "--output", help="How to print the plan.")] = PlanFormat.TEXT,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=0, max=64, help="GPUs of a node, where the manifest says auto.")
    ] = None,
    nodes: NodesOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="NODE", help="What if this node were not there? Repeatable."),
    ] = None,
    within: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="What if every ring had to be inside one domain of the level?")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Print how jobs would be spread over ranks and rings; with --nodes or --context, also over which nodes.

    With gpusPerNode auto, as on those nodes, or else on this machine.
    """
    asked = [*(overrides or []), *_within(within)]
    there = network(nodes, Target(kubeconfig, context)) if nodes or context or kubeconfig else None
    if there is None and (picture := _needs_network(output, exclude, within)):
        raise refuse(picture, "needs a network", "Give --nodes FILE, or --context NAME.")
    if there is not None and gpus_per_node is None:
        gpus_per_node = gpus_of(there)
    made = []
    for job in load_jobs(file, asked or None):
        planned = _planned(job, gpus_per_node)
        made.append((planned, placed(job, planned, there, exclude or ()) if there else None))
    if output is PlanFormat.TEXT:
        _print_text(made)
    elif output in (PlanFormat.SVG, PlanFormat.HTML):
        _print_picture(output, made)
    else:
        _print_values(output, [document_of(on, document(p)) if on else document(p) for p, on in made])


def _within(level: str | None) -> list[str]:
    return [] if level is None else [f"placement.within={{level: {level}, policy: required}}"]


def _needs_network(output: PlanFormat, exclude: list[str] | None, within: str | None) -> str | None:
    """The option that makes no sense without nodes."""
    if output in (PlanFormat.SVG, PlanFormat.HTML):
        return f"-o {output}"
    return "--exclude" if exclude else "--within" if within else None


def _print_values(output: PlanFormat, documents: list[dict[str, Any]]) -> None:
    if output is PlanFormat.YAML:
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False, default_flow_style=None), nl=False)
    else:
        typer.echo(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2))


def _print_picture(output: PlanFormat, made: list[tuple[ParallelPlan, Placed | None]]) -> None:
    if len(made) != 1:
        raise refuse(f"-o {output}", f"draws one job, and the file has {len(made)}", "Give a file with one job.")
    [(_, on)] = made
    assert on is not None
    typer.echo(svg_of(on) if output is PlanFormat.SVG else html_of(on), nl=False)


def _planned(job: TrainingJob, gpus_per_node: int | None) -> ParallelPlan:
    """As `ringctl run` would, on this machine's cores, where the manifest is of CPUs and does not say how many."""
    machines = _machines(job.spec, gpus_per_node)
    if machines.gpus_per_node or machines.cpus_per_node is not None:
        return plan_job(job, machines)
    cores = find_machines(job.spec.workers.nodes, ()).cpus_per_node
    plan = plan_job(job, dataclasses.replace(machines, cpus_per_node=cores))
    note = f"planned with this machine's CPU cores, {cores} a node, since workers.resources names no cpu"
    return dataclasses.replace(plan, notes=(*plan.notes, note))


def _machines(spec: JobSpec, gpus_per_node: int | None) -> Machines:
    """Those of the manifest; this one where neither it nor the command line says what nodes have."""
    if spec.workers.gpus_per_node == "auto" and gpus_per_node is None:
        return find_machines(spec.workers.nodes, visible_gpus(os.environ))
    return machines_of(spec, gpus_per_node)


def _print_text(made: list[tuple[ParallelPlan, Placed | None]]) -> None:
    console = screen()
    for i, (each, on) in enumerate(made):
        if i:
            console.print()
        print_plan(console, each)
        for label, said in rows_of(on) if on else ():
            console.print(
                Text.assemble((f"  {label:<12}", "yellow" if label == "note" else "dim"), said), soft_wrap=True
            )


def print_plan(console: Console, plan: ParallelPlan) -> None:
    """The plan for people; `ringctl run` shows the same."""
    console.print(Text.assemble((plan.job, "bold"), ": ", _where(plan)))
    for label, value in _rows(plan):
        console.print(Text.assemble((f"  {label:<12}", "dim"), value), soft_wrap=True)
    for note in plan.notes:
        console.print(Text.assemble(("  note        ", "yellow"), note), soft_wrap=True)


def _where(plan: ParallelPlan) -> str:
    if plan.device == "cuda":
        gpus = f"{_count(plan.nodes, 'node')} of {_count(plan.ranks_per_node, 'GPU')}"
        return f"{_count(plan.world_size, 'rank')} on {gpus}, over NCCL"
    threads = f"{_count(plan.threads, 'thread')} each"
    return f"{_count(plan.world_size, 'rank')} on the CPU of {_count(plan.nodes, 'node')}, {threads}, over gloo"


def _rows(plan: ParallelPlan) -> Iterator[tuple[str, Text]]:
    yield "degrees", _degrees(plan)
    for i, ring in enumerate(plan.rings[:_RINGS_SHOWN]):
        yield ("rings" if len(plan.rings) > 1 else "ring") if i == 0 else "", Text(_ring(plan, ring))
    if len(plan.rings) > _RINGS_SHOWN:
        yield "", Text(f"and {len(plan.rings) - _RINGS_SHOWN:,} rings more like these")
    for label, value in _work(plan):
        yield label, Text(value)


def _degrees(plan: ParallelPlan) -> Text:
    degrees = plan.degrees
    parts = [(n, getattr(degrees, n)) for n in ("pipeline", "data", "context", "tensor")]
    text = Text(" x ").join(Text(f"{name} {value}", "bold" if value > 1 else "dim") for name, value in parts)
    text.append(f" = {plan.world_size:,}")
    return text.append("".join(f"; {said}" for said in _inside_context(degrees)))


def _inside_context(degrees: Degrees) -> Iterator[str]:
    if degrees.ulysses > 1:
        yield f"context {degrees.context} = ulysses {degrees.ulysses} x ring {degrees.ring}"
    if degrees.rings_in_ring > 1:
        yield f"ring {degrees.ring} = {degrees.rings_in_ring} inner rings of {degrees.inner_ring}"


def _ring(plan: ParallelPlan, ring: Ring) -> str:
    """Ranks in ring order, and the nodes that the ring crosses; 0+1 share a place and split its heads."""
    if len(ring.ranks) == 1:
        return f"{ring.index}: rank {ring.ranks[0]} alone, nothing is sent"
    members = plan.degrees.ulysses
    places = ["+".join(map(str, ring.ranks[i : i + members])) for i in range(0, len(ring.ranks), members)]
    few = len(ring.ranks) <= _RANKS_SHOWN or len(places) <= 6
    shown = places if few else (*places[:4], "...", *places[-2:])
    nodes = sorted({rank // plan.ranks_per_node for rank in ring.ranks})
    across = f"  (nodes {nodes[0]} to {nodes[-1]})" if len(nodes) > 1 else ""
    back = f" > {places[0]}" if len(places) > 1 else ", which split the heads"
    return f"{ring.index}: {' > '.join(shown)}{back}{across}"


def _work(plan: ParallelPlan) -> Iterator[tuple[str, str]]:
    work = plan.work
    yield "sequence", f"{plan.length:,} tokens, {plan.layout}: {plan.tokens_per_rank:,} a rank"
    turns = f", {plan.accumulation} one after the other on each data rank" if plan.accumulation > 1 else ""
    yield "step", f"{_count(plan.batch, 'sequence')} = {plan.tokens_per_step:,} tokens{turns}"
    yield "training", f"{_count(plan.steps, 'step')} = {_big(plan.tokens)}tokens"
    yield "model", f"{_big(work.weights)}weights; {_layers(plan)}"
    yield (
        "arithmetic",
        f"{_big(work.flops)}operations a step, {work.attention_flops / work.flops:.0%} of them attention",
    )
    if plan.degrees.ring > 1:
        yield "ring step", f"{_bytes(work.block_bytes)} of keys and values to the next rank, in each full layer"
    yield "backward", f"recomputes {_RECOMPUTED[plan.recompute]}"


_RECOMPUTED = {
    "none": "nothing",
    "attention": "everything but attention",
    "output": "everything but attention, of which the output alone is kept",
    "late": "everything but the attention of late tokens, of which the output is kept",
    "full": "everything",
}


def _layers(plan: ParallelPlan) -> str:
    return ", ".join(f"{_count(g.count, f'{g.kind} layer')}{_reach(g)}" for g in plan.work.layers)


def _reach(group: LayerGroup) -> str:
    if group.kind == "full":
        return ""
    first = f" ({group.global_tokens:,} of them the first)" if group.global_tokens else ""
    return f" of {group.reach:,} tokens{first}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _big(number: float) -> str:
    """`1.35 million `, with three figures and a space behind."""
    for unit, name in ((1e18, "x 10^18"), (1e15, "x 10^15"), (1e12, "x 10^12"), (1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name} "
    return f"{number:,.0f} "


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
