"""The operator as a process beside the test: `with running_operator(cluster, folder) as operator: operator.kill()`.

It has the rights of its own service account where the cluster knows that (`manifests/rbac`), and serves on a free port.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from clusterkit.component import Component
from clusterkit.control_plane import answers
from clusterkit.ports import free_ports

IMAGE = "localhost/ring-training-worker:dev"


def operator_component(kubeconfig: Path, folder: Path, name: str = "operator", *arguments: str) -> Component:
    """Ready when it has listed everything. `arguments`: more of its options."""
    (port,) = free_ports(1)
    command = [
        "env",
        f"POD_NAME={name}",  # the holder of the lease: started again, it goes on at once
        sys.executable,
        "-m",
        "ring_operator",
        f"--kubeconfig={kubeconfig}",
        f"--worker-image={IMAGE}",
        f"--port={port}",
        "--lease-namespace=ring-system",
        "--log-level=debug",
        *arguments,
    ]
    component = Component(
        name,
        command,
        folder / f"{name}.log",
        answers(f"http://127.0.0.1:{port}/readyz", ssl.create_default_context()),
    )
    component.port = port  # type: ignore[attr-defined]
    return component


@contextlib.contextmanager
def running_operator(kubeconfig: Path, folder: Path, name: str = "operator", *arguments: str) -> Iterator[Component]:
    component = operator_component(kubeconfig, folder, name, *arguments)
    try:
        component.start()
        yield component
    finally:
        component.kill()
