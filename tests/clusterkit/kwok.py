"""kwok plays the kubelets of simulated nodes: pods bound to them run, and go when they are deleted.

In: a kubeconfig. Out: a `Component`; what it does to pods is in `kwok_stages.yaml`. Pods get addresses of
127.16.0.0/12, each its own: a server of the test that listens on 0.0.0.0 answers for all of them, and knows by its
local address which pod is asked (`clusterkit.fake_agents`).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from clusterkit.binaries import binary
from clusterkit.component import Component
from clusterkit.control_plane import answers
from clusterkit.nodes import SIMULATED
from clusterkit.ports import free_ports
from clusterkit.progress import Say, say_on_stderr

POD_ADDRESSES = "127.16.0.0/12"
STAGES = Path(__file__).with_name("kwok_stages.yaml")
LEASE_SECONDS = 40


@contextlib.contextmanager
def kwok(kubeconfig: Path, folder: Path, *, heartbeats: bool = False, say: Say = say_on_stderr) -> Iterator[Component]:
    """`heartbeats`: renew the nodes' leases, for a cluster that takes silent nodes for lost (`Settings` does not)."""
    (port,) = free_ports(1)
    labels = ",".join(f"{key}={value}" for key, value in SIMULATED.items())
    command = [
        str(binary("kwok", say=say)),
        f"--kubeconfig={kubeconfig}",
        f"--config={STAGES}",
        f"--cidr={POD_ADDRESSES}",
        f"--manage-nodes-with-label-selector={labels}",
        f"--node-lease-duration-seconds={LEASE_SECONDS if heartbeats else 0}",
        f"--server-address=127.0.0.1:{port}",
    ]
    healthy = answers(f"http://127.0.0.1:{port}/healthz", ssl.create_default_context())
    component = Component("kwok", command, folder / "kwok.log", healthy)
    try:
        component.start()
        yield component
    finally:
        component.kill()
