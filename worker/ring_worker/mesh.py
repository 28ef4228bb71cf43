"""Ranks -> process groups: who shares a sequence, who shares the weights.

Ranks count, slowest to fastest, over pipeline, data, context, tensor, as in the rank table. Context is two dims of
torch's DeviceMesh, which makes its groups in one order on all ranks: the places of the ring, and the ranks that share a
place and split the heads (Ulysses), which are next to each other. Ranks find each other through a TCP store under the
epoch's token, so that a process left over from an older epoch, or a stranger who does not know the token, meets nobody.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ring_worker.contract import ENV_EPOCH, ENV_RESTARTS, ENV_TOKEN, Degrees

AXES = ("pipeline", "data", "ring", "ulysses", "tensor")
MEETING_SECONDS = 300  # for all ranks to arrive
TRANSFER_SECONDS = 600  # for any one collective or transfer
STORAGE_SECONDS = 4 * 3600  # for the slowest rank to write its part of a checkpoint


@dataclass(frozen=True, slots=True)
class Launch:
    """What the agent tells a rank in its environment."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    master_address: str = "127.0.0.1"
    master_port: int = 0
    epoch: int = 1
    restarts: int = 0
    token: str = ""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Launch:
        """Raises KeyError for a missing variable: only the agent starts ranks."""
        return cls(
            rank=int(env["RANK"]),
            world_size=int(env["WORLD_SIZE"]),
            local_rank=int(env["LOCAL_RANK"]),
            master_address=env["MASTER_ADDR"],
            master_port=int(env["MASTER_PORT"]),
            epoch=int(env[ENV_EPOCH]),
            restarts=int(env[ENV_RESTARTS]),
            token=env[ENV_TOKEN],
        )


@dataclass(frozen=True, slots=True)
class Mesh:
    """This rank's place. `world`: every rank, which all hold the same weights.

    `places`: this rank and its likes at the other places of the ring. `members`: the ranks that share its place.
    """

    launch: Launch
    degrees: Degrees
    device: torch.device
    axes: DeviceMesh
    storage: dist.ProcessGroup  # every rank again, over gloo, with the patience that disks need
    one_host: bool  # whether all ranks share a clock

    @property
    def world(self) -> dist.ProcessGroup:
        group = dist.group.WORLD
        assert group is not None
        return group

    @property
    def places(self) -> dist.ProcessGroup:
        return self.axes.get_group("ring")

    @property
    def members(self) -> dist.ProcessGroup:
        return self.axes.get_group("ulysses")

    @property
    def data_rank(self) -> int:
        return self.axes.get_local_rank("data")

    @property
    def place(self) -> int:
        """In the ring."""
        return self.axes.get_local_rank("ring")

    @property
    def member(self) -> int:
        """Among the ranks that share the place."""
        return self.axes.get_local_rank("ulysses")

    @property
    def position(self) -> int:
        """Among all ranks of a sequence."""
        return self.place * self.degrees.ulysses + self.member

    @property
    def ring(self) -> int:
        """Index of this rank's ring. Without pipeline and tensor ranks, rings are the data ranks."""
        return self.data_rank

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.launch.rank == 0


def open_mesh(launch: Launch, degrees: Degrees, device: str) -> Mesh:
    """Meet the other ranks. `device`: cpu (gloo) or cuda (NCCL, with gloo for host tensors)."""
    own = torch.device("cuda", launch.local_rank) if device == "cuda" else torch.device("cpu")
    if own.type == "cuda":
        torch.cuda.set_device(own)
    _prefer_loopback(launch.master_address)
    store = TCPStore(
        launch.master_address,
        launch.master_port,
        world_size=launch.world_size,
        is_master=launch.rank == 0,
        timeout=timedelta(seconds=MEETING_SECONDS),
    )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo",
        store=PrefixStore(f"{launch.token}/{launch.epoch}", store),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(seconds=TRANSFER_SECONDS),
    )
    axes = init_device_mesh(own.type, tuple(getattr(degrees, axis) for axis in AXES), mesh_dim_names=AXES)
    hosts: list[str | None] = [None] * launch.world_size
    dist.all_gather_object(hosts, _boot_id())
    storage = dist.new_group(backend="gloo", timeout=timedelta(seconds=STORAGE_SECONDS))
    assert isinstance(storage, dist.ProcessGroup)
    return Mesh(launch, degrees, own, axes, storage, one_host=len(set(hosts)) == 1)


def _prefer_loopback(master_address: str) -> None:
    """Gloo binds to the host name's address, which many laptops cannot resolve; on one machine loopback will do."""
    if master_address.startswith("127.") or master_address == "localhost":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")


def _boot_id() -> str:
    """Equal for processes that share CLOCK_MONOTONIC."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()
