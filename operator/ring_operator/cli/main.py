"""The application: its commands, and the one place where errors of a user become an exit code."""

from __future__ import annotations

import sys

import typer

from ring_operator.cli.common import print_faults
from ring_operator.cli.explain import explain
from ring_operator.cli.plan import plan
from ring_operator.cli.run import run
from ring_operator.cli.validate import validate
from ring_operator.cli.version import version
from ring_operator.errors import UserError

app = typer.Typer(
    name="ringctl",
    help="Train language models on very long contexts over rings of ranks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (validate, explain, plan, run, version):
    app.command()(command)


def main() -> None:
    """Entry point of `ringctl`."""
    try:
        app()
    except UserError as error:
        print_faults(error.faults)
        sys.exit(1)
