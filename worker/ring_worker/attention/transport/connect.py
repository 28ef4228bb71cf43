"""The transport of a process group: NCCL's or gloo's, as the group's own back end is."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from ring_worker.attention.transport.gloo import GlooTransport
from ring_worker.attention.transport.interface import Solo, Transport
from ring_worker.attention.transport.nccl import NcclTransport


def connect(group: dist.ProcessGroup, one_host: bool = True, inner_rings: bool = False) -> Transport:
    """Every rank of the group calls it. `one_host`: the ranks share a clock.

    With `inner_rings`, NCCL gets a second group of the same ranks for what crosses between them.
    """
    if group.size() == 1:
        return Solo()
    if "nccl" not in str(dist.get_backend(group)):
        return GlooTransport(group, one_host)
    outer: Any = None
    if inner_rings:
        ranks = dist.get_process_group_ranks(group)
        outer = dist.new_group(ranks, backend="nccl", use_local_synchronization=True)
    return NcclTransport(group, outer)
