"""Real gloo ranks, forked from a server that has torch loaded, and killed at the end."""

import contextlib
import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_SECONDS = 60
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch.distributed.checkpoint", "ring_worker.build"])

Act = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank's process, and the end at which one hears what it says."""

    process: ForkServerProcess
    hears: Connection

    def next(self) -> Any:
        assert self.hears.poll(TIMEOUT_SECONDS), "the rank says nothing"
        return self.hears.recv()

    def rest(self) -> list[Any]:
        """All that it still said before its end."""
        said = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while self.hears.poll(TIMEOUT_SECONDS):
                said.append(self.hears.recv())
        return said


@contextlib.contextmanager
def ranks(world: int, meeting: Path, act: Act, *arguments: Any) -> Iterator[list[Rank]]:
    """`world` processes of one gloo group, met in the folder `meeting`, each doing `act(group, say, *arguments)`.

    A world of one has no group: None.
    """
    store = meeting / f"store-{uuid.uuid4().hex}"
    started = []
    try:
        for rank in range(world):
            hears, says = _SERVER.Pipe(duplex=False)
            process = _SERVER.Process(target=_be, args=(rank, world, store, says, act, arguments), daemon=True)
            process.start()
            says.close()
            started.append(Rank(process, hears))
        yield started
    finally:
        for one in started:
            one.process.kill()
            one.process.join(TIMEOUT_SECONDS)


def outcomes(world: int, meeting: Path, act: Act, *arguments: Any) -> list[Any]:
    """What `act(group, say, *arguments)` said last on each rank; an exception as its type's name and its text."""
    with ranks(world, meeting, act, *arguments) as started:
        return [rank.rest()[-1] for rank in started]


def _be(rank: int, world: int, store: Path, says: Connection, act: Act, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        act(dist.group.WORLD if world > 1 else None, says.send, *arguments)
    except Exception as error:
        says.send((type(error).__name__, str(error)))
    if world > 1:
        dist.destroy_process_group()
