"""`ringctl crd`: the CustomResourceDefinition, for `kubectl apply -f -`."""

from __future__ import annotations

import typer

from ring_operator.crd import as_yaml


def crd() -> None:
    """Print the CustomResourceDefinition by which a cluster knows and checks a RingTrainingJob."""
    typer.echo(as_yaml(), nl=False)
