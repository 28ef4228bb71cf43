"""The application: its commands, and the one place where errors of a user become an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from ring_operator.cli.common import print_faults
from ring_operator.cli.crd import crd
from ring_operator.cli.explain import explain
from ring_operator.cli.plan import plan
from ring_operator.cli.remote.change import delete, restart, resume, suspend
from ring_operator.cli.remote.logs import logs
from ring_operator.cli.remote.status import status
from ring_operator.cli.remote.submit import submit
from ring_operator.cli.remote.top import top
from ring_operator.cli.run import run
from ring_operator.cli.topology import topology
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
ON_THIS_MACHINE: tuple[Callable[..., None], ...] = (validate, explain, plan, run, crd, version)
ON_A_CLUSTER: tuple[Callable[..., None], ...] = (
    submit,
    status,
    top,
    logs,
    suspend,
    resume,
    restart,
    delete,
    topology,
)
for _panel, _commands in (("On this machine", ON_THIS_MACHINE), ("On a cluster", ON_A_CLUSTER)):
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


def main() -> None:
    """Entry point of `ringctl`."""
    try:
        app()
    except UserError as error:
        print_faults(error.faults)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        print(f"ringctl: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    finally:
        _give_up_what_cannot_be_written()


def _give_up_what_cannot_be_written() -> None:
    """A full disk or a reader that has gone would else be told once more by a traceback of the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
