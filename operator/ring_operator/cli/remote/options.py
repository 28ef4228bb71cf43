"""What the commands on a cluster share: where the cluster is, and exit codes."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from ring_operator.cli.common import Format
from ring_operator.remote.errors import UnreachableError
from ring_operator.remote.jobs import Jobs, connect
from ring_operator.remote.kubeconfig import Target


class Exit(enum.IntEnum):
    """Exit codes of `ringctl`, and of a job that is waited for. 2 is a wrong command line."""

    OK = 0
    REFUSED = 1  # the manifest, or what was asked, cannot be
    FAILED = 3  # the job failed
    NOT_FOUND = 4  # no such job, or it was deleted while it was waited for
    UNREACHABLE = 5  # no connection, or no right
    INTERRUPTED = 130  # Ctrl-C; on a cluster the job goes on


KubeconfigOption = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, else ~/.kube/config.", show_default=False),
]
ContextOption = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one."),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("-n", "--namespace", metavar="NAME", help="Default: the context's, else default."),
]
OutputOption = Annotated[Format, typer.Option("-o", "--output", help="How to print: for people or for programs.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it is so.")]


_T = TypeVar("_T")


def if_allowed(look: Callable[[], _T], otherwise: _T, note: Callable[[str], None] = lambda text: None) -> _T:
    """What a person without the right to it does not need in order to see the rest."""
    try:
        return look()
    except UnreachableError as error:
        if error.again:
            raise
        note(error.faults[0].message)
        return otherwise


def note_on_stderr(text: str) -> None:
    print(f"ringctl: {text}", file=sys.stderr, flush=True)


def jobs_at(kubeconfig: str | None, context: str | None, namespace: str | None) -> Jobs:
    """Raises UnreachableError. Nothing is asked yet."""
    return connect(Target(kubeconfig, context, namespace))
