"""What commands share: reading manifests with `--set`, and showing faults."""

from __future__ import annotations

import enum
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ring_operator.errors import Fault, UserError
from ring_operator.plan import machines_of
from ring_operator.plan import plan as plan_job
from ring_operator.spec import Checked, TrainingJob, check_manifest, placed, read_text, unsupported

STANDARD_INPUT = "-"

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a field, such as training.steps=5; the value is YAML. Repeatable."
    ),
]


_WIDTH = 100  # where there is no terminal to ask


def screen(stderr: bool = False) -> Console:
    """Where people read: as wide as the terminal, plain and of a fixed width where there is none."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def lines(console: Console, text: str, indent: int, style: str = "") -> None:
    """Print a paragraph, indented and broken between words."""
    margin = " " * indent
    for line in textwrap.wrap(text, max(20, console.width - 1), initial_indent=margin, subsequent_indent=margin):
        console.print(Text(line, style), soft_wrap=True)


class Format(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


def read_source(file: str) -> str:
    """Text of a file, or of standard input for `-`. Raises UserError."""
    if file != STANDARD_INPUT:
        return read_text(file)
    if sys.stdin is None:
        raise UserError([Fault("", "is closed", "Give a file, or pipe one in.", "standard input")])
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError([Fault("", f"not UTF-8 at byte {error.start}", where="standard input")]) from None


def source_name(file: str) -> str:
    """What a file is called in messages."""
    return "standard input" if file == STANDARD_INPUT else file


def check_file(file: str, overrides: Sequence[str] = (), machine: bool = False) -> Checked:
    """Jobs and faults of a file. Never raises for the file.

    A job that asks for what it does not get, on a cluster or on this `machine`, is a fault.
    """
    try:
        text = read_source(file)
    except UserError as error:
        return Checked((), error.faults)
    checked = check_manifest(text, source_name(file), overrides)
    gaps = {
        i: [placed(fault, document) for fault in unsupported(job, machine)]
        for i, (job, document) in enumerate(zip(checked.jobs, checked.documents, strict=True))
    }
    return Checked(
        jobs=tuple(job for i, job in enumerate(checked.jobs) if not gaps[i]),
        faults=(*checked.faults, *(fault for faults in gaps.values() for fault in faults)),
        documents=tuple(document for i, document in enumerate(checked.documents) if not gaps[i]),
    )


def plan_faults(checked: Checked, auto: bool = False) -> Iterator[Fault]:
    """What a plan would refuse. Where the manifest leaves the GPUs of a node open, only with `auto`."""
    for job, document in zip(checked.jobs, checked.documents, strict=True):
        if job.spec.workers.gpus_per_node == "auto" and not auto:
            continue
        try:
            plan_job(job, machines_of(job.spec))
        except UserError as error:
            yield from (placed(fault, document) for fault in error.faults)


def load_jobs(file: str, overrides: Sequence[str] | None = None, machine: bool = False) -> list[TrainingJob]:
    """The jobs of a file, all of which a cluster, or this `machine`, can run. Raises UserError with every fault."""
    checked = check_file(file, overrides or (), machine)
    if checked.faults:
        raise UserError(checked.faults)
    return list(checked.jobs)


def print_faults(faults: Iterable[Fault]) -> None:
    """To standard error: what is wrong in red, the way out below it. Plain where that is no terminal."""
    console = screen(stderr=True)
    for fault in faults:
        where = f"{fault.where}: " if fault.where else ""
        path = f"{fault.path}: " if fault.path else ""
        console.print(Text.assemble((where, "dim"), (path, "bold"), (fault.message, "red")), soft_wrap=True)
        if fault.remedy:
            console.print(Text(f"  {fault.remedy}"), soft_wrap=True)
