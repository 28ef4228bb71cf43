"""`ringctl version`."""

from __future__ import annotations

import platform
from importlib import metadata

import typer

from ring_operator import names
from ring_worker import contract


def version() -> None:
    """Print the versions of this program, of its API and of the contract with the worker."""
    typer.echo(f"ringctl {metadata.version('ring-training-operator')}")
    typer.echo(f"API {names.API_VERSION}, contract {contract.VERSION}, Python {platform.python_version()}")
