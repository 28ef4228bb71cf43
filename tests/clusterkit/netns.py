"""A network namespace for a cluster: a bridge for its pods, an address for its API server and one for each node.

Nothing in it touches the machine's own network, and nothing outside reaches what is in it, so this process goes in too
(`inside`), with every process and thread that it starts from then on. From a shell: `nsenter --net=/run/netns/NAME`;
`ip netns exec` will not do, since it mounts a new /sys, in which the kubelet finds no control groups.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from clusterkit.host import search_path

BRIDGE = "ring0"
POD_NETWORK = "10.244.0.0/16"
GATEWAY = "10.244.0.1"
SERVER_ADDRESS = "10.245.0.1"
_CLONE_NEWNET = 0x40000000
_FOLDER = Path("/run/netns")


class NetworkError(Exception):
    """The kernel or `ip` refused; the text says what."""


def node_address(index: int) -> str:
    return f"10.245.0.{10 + index}"


def pod_range(index: int) -> tuple[str, str]:
    """First and last address of a node's pods. The bridge is one for all nodes, so are the subnet and its gateway."""
    return f"10.244.{1 + index}.1", f"10.244.{1 + index}.254"


def make(name: str, nodes: int) -> Path:
    """Raises NetworkError."""
    _ip("netns", "add", name)
    for line in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {GATEWAY}/16 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        *(f"addr add {address}/32 dev lo" for address in (SERVER_ADDRESS, *map(node_address, range(nodes)))),
    ):
        _ip("-n", name, *line.split())
    return _FOLDER / name


def remove(name: str) -> None:
    if (_FOLDER / name).exists():
        _ip("netns", "del", name)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """The calling thread, and what it starts meanwhile, uses this network."""
    with open("/proc/thread-self/ns/net") as before, (_FOLDER / name).open() as there:
        _enter(there.fileno())
        try:
            # Forwarding is the namespace's own setting.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            yield
        finally:
            _enter(before.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise NetworkError(f"cannot enter the network namespace: {os.strerror(number)}")


def _ip(*arguments: str) -> None:
    environment = {**os.environ, "PATH": search_path()}
    said = subprocess.run(["ip", *arguments], env=environment, capture_output=True, text=True)
    if said.returncode:
        raise NetworkError(f"ip {' '.join(arguments)} failed: {said.stderr.strip()}")
