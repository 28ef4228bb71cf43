"""A rank that meets the others over gloo and then hangs: rank 0 asleep, the others in the barrier that waits for it."""

from __future__ import annotations

import os
import time

import torch.distributed as dist

from ring_worker.contract import Degrees
from ring_worker.mesh import Launch, open_mesh
from ring_worker.stacks import answer_for_stacks


def main() -> None:
    answer_for_stacks(os.environ)
    launch = Launch.from_environment(os.environ)
    open_mesh(launch, Degrees(context=launch.world_size), "cpu")
    if launch.rank == 0:
        asleep()
    dist.barrier()


def asleep() -> None:
    time.sleep(3600)


if __name__ == "__main__":
    main()
