"""kwok plays the kubelets of simulated nodes: pods bound to them run, and go when they are deleted.

In: a kubeconfig. Out: a `Component`; what it does to pods is in `kwok_stages.yaml`. Every pod gets an address of its
own of 127.N.0.0/16, which is this machine: a process of the test can answer there (`clusterkit.fake_agents`). N is
another one for each kwok that runs, so that tests may run side by side.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from clusterkit.binaries import binary
from clusterkit.component import Component
from clusterkit.control_plane import answers
from clusterkit.nodes import SIMULATED
from clusterkit.ports import free_ports
from clusterkit.progress import Say, say_on_stderr

NETWORKS = range(16, 255)
TOKEN_PORT = 8470
STAGES = Path(__file__).with_name("kwok_stages.yaml")
LEASE_SECONDS = 40


@contextlib.contextmanager
def kwok(kubeconfig: Path, folder: Path, *, heartbeats: bool = False, say: Say = say_on_stderr) -> Iterator[Component]:
    """`heartbeats`: renew the nodes' leases, for a cluster that takes silent nodes for lost (`Settings` does not)."""
    with _addresses() as addresses:
        component = _component(kubeconfig, folder, addresses, heartbeats=heartbeats, say=say)
        try:
            component.start()
            yield component
        finally:
            component.kill()


@contextlib.contextmanager
def _addresses() -> Iterator[str]:
    """A network that is ours while a socket is bound to its last address."""
    for number in random.sample(NETWORKS, len(NETWORKS)):
        with socket.socket() as token:
            try:
                token.bind((f"127.{number}.255.254", TOKEN_PORT))
            except OSError:
                continue
            yield f"127.{number}.0.0/16"
            return
    raise OSError(f"every network 127.N.0.0/16 has a kwok already: port {TOKEN_PORT} is taken on all of them")


def _component(kubeconfig: Path, folder: Path, addresses: str, *, heartbeats: bool, say: Say) -> Component:
    (port,) = free_ports(1)
    labels = ",".join(f"{key}={value}" for key, value in SIMULATED.items())
    command = [
        str(binary("kwok", say=say)),
        f"--kubeconfig={kubeconfig}",
        f"--config={STAGES}",
        f"--cidr={addresses}",
        f"--manage-nodes-with-label-selector={labels}",
        f"--node-lease-duration-seconds={LEASE_SECONDS if heartbeats else 0}",
        f"--server-address=127.0.0.1:{port}",
    ]
    healthy = answers(f"http://127.0.0.1:{port}/healthz", ssl.create_default_context())
    return Component("kwok", command, folder / "kwok.log", healthy)
