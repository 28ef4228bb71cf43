"""`ringctl explain`: what a field means, what may stand in it, and what is below it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ring_operator.cli.common import lines, screen
from ring_operator.spec import Field, every_field, field_at, nearest, paths_named
from ring_operator.spec.unsupported import CLUSTER_ONLY, GAPS


def explain(
    field: Annotated[str, typer.Argument(metavar="[FIELD]", help="Such as spec.context or training.steps.")] = "",
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="All fields below, too.")] = False,
) -> None:
    """Print a field's meaning, type, default, bounds and children."""
    found = find(field.strip(". "))
    if found is None:
        hint = _nearest_path(field)
        typer.echo(f"{field} is not a field of a RingTrainingJob.{f' Did you mean {hint}?' if hint else ''}", err=True)
        raise typer.Exit(2)
    console = screen()
    _head(console, found)
    for child in every_field(found) if recursive else found.children:
        _line(console, child, child.path.count(".") - found.path.count(".") - (1 if found.path else 0))


def find(path: str) -> Field | None:
    """The field of a path, with or without `spec.` before it and indices in it; the job itself for an empty path."""
    parts = tuple(part.partition("[")[0] for part in path.split(".")) if path else ()
    return field_at(parts) or field_at(("spec", *parts))


def _nearest_path(path: str) -> str | None:
    """By the last name where that exists elsewhere, else by the whole path."""
    last = path.rpartition(".")[2]
    if same := paths_named(last):
        return same[0]
    paths = [field.path for field in every_field()]
    return nearest(path, paths) or nearest(f"spec.{path}", paths) or _by_last_name(last)


def _by_last_name(name: str) -> str | None:
    near = nearest(name, [field.name for field in every_field()])
    return paths_named(near)[0] if near else None


def _head(console: Console, field: Field) -> None:
    title = Text.assemble((field.path or "RingTrainingJob", "bold"), f"  <{field.type}>", *_required(field))
    console.print(title, soft_wrap=True)
    lines(console, field.description, 2)
    for label, value in _facts(field):
        lines(console, f"{label}: {value}", 2)
    if field.children:
        console.print()


def _facts(field: Field) -> Iterator[tuple[str, str]]:
    if field.values:
        yield "Values", ", ".join(map(str, field.values))
    if (default := _default(field)) is not None:
        yield "Default", default
    if field.bounds:
        yield "Bounds", ", ".join(field.bounds)
    for gap in GAPS:
        if f"spec.{gap.path}" == field.path:
            yield "Not built yet, or not all of it", gap.instead
    for gap in CLUSTER_ONLY:
        if f"spec.{gap.path}" == field.path:
            yield "For jobs on a cluster; with ringctl run", gap.instead


def _default(field: Field) -> str | None:
    """As it would be written; what follows from other fields is told in the description."""
    if field.children or field.default is None or field.default == "":
        return None
    return field.default if isinstance(field.default, str) else json.dumps(field.default)


def _required(field: Field) -> tuple[tuple[str, str], ...]:
    return (("  required", "yellow"),) if field.required and field.path else ()


def _line(console: Console, field: Field, depth: int) -> None:
    default = _default(field)
    tail = f"  default {default}" if default else ""
    margin = " " * (2 + 2 * depth)
    head = Text.assemble(margin, (field.name, "bold"), f"  <{field.type}>", *_required(field), (tail, "dim"))
    console.print(head, soft_wrap=True)
    lines(console, field.description, len(margin) + 2, "dim")
