"""`ringctl validate`: every fault of every file at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from ring_operator.cli.common import Format, check_file, plan_faults, print_faults, screen, source_name
from ring_operator.errors import Fault
from ring_operator.spec import Checked


def validate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Manifests, YAML or JSON; - reads standard input.")
    ],
    output: Annotated[Format, typer.Option("-o", "--output", help="How to print the result.")] = Format.TEXT,
) -> None:
    """Check manifests and print all that is wrong with them. Exit code 1 if anything is."""
    results = [(file, check_file(file)) for file in files]
    faults = [fault for _, checked in results for fault in (*checked.faults, *plan_faults(checked))]
    if output is Format.JSON:
        _print_json(results, faults)
    else:
        _print_text(results, faults)
    raise typer.Exit(1 if faults else 0)


def _print_text(results: list[tuple[str, Checked]], faults: list[Fault]) -> None:
    console = screen()
    bad = {fault.where.rpartition(":")[0] for fault in faults} | {fault.where for fault in faults}
    for file, checked in results:
        if source_name(file) not in bad:
            jobs = ", ".join(job.name for job in checked.jobs)
            console.print(Text.assemble(("ok", "green"), f"  {source_name(file)}: {jobs}"), soft_wrap=True)
    print_faults(faults)


def _print_json(results: list[tuple[str, Checked]], faults: list[Fault]) -> None:
    jobs = [{"file": file, "name": job.name} for file, checked in results for job in checked.jobs]
    document = {"valid": not faults, "jobs": jobs, "errors": [asdict(fault) for fault in faults]}
    typer.echo(json.dumps(document, indent=2))
