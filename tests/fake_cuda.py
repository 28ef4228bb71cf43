"""CUDA's streams and symmetric memory, faked on the CPU, to see what a transport asks of them.

A stream runs what is posted to it at once, in the thread that posts: one thread a rank is a device whose only stream is
in order. A signal is one flag, and a put waits until the flag before has been taken, as torch's kernels do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

PATIENCE_SECONDS = 20


@dataclass
class FakeCuda:
    """`log`: what happened, in order, as tuples."""

    log: list[tuple[Any, ...]] = field(default_factory=list)
    names: threading.local = field(default_factory=threading.local)

    @property
    def current(self) -> FakeStream:
        return FakeStream(self, getattr(self.names, "current", "compute"))

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.names.current = self.current.name, stream.name
        yield
        self.names.current = before

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def record_stream(tensor: Tensor, stream: FakeStream) -> None:
            self.log.append(("record", tensor.data_ptr(), stream.name))

        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "Stream", lambda: FakeStream(self, "side"))
        patch.setattr(torch.cuda, "current_stream", lambda: self.current)
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "Event", lambda enable_timing: FakeEvent(self))
        patch.setattr(torch.Tensor, "record_stream", record_stream)


@dataclass(frozen=True)
class FakeStream:
    cuda: FakeCuda
    name: str
    device: str = "cpu"

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.log.append((self.name, "waits for", other.name))

    def wait_event(self, event: FakeEvent) -> None:
        self.cuda.log.append((self.name, "waits for", event))


@dataclass(eq=False)
class FakeEvent:
    cuda: FakeCuda

    def record(self) -> None:
        self.cuda.log.append((self.cuda.current.name, "marks", self))


@dataclass
class FakeNode:
    """The GPUs of a node, one thread each: their staging memory and the signals between them."""

    size: int
    staging: dict[int, Tensor] = field(default_factory=dict)
    flags: set[tuple[int, int, int]] = field(default_factory=set)  # from, to, signal
    changed: threading.Condition = field(default_factory=threading.Condition)

    def flip(self, flag: tuple[int, int, int], up: bool) -> None:
        """Once it is down put it up, or the other way round."""
        with self.changed:
            assert self.changed.wait_for(lambda: (flag in self.flags) != up, PATIENCE_SECONDS), f"stuck at {flag}"
            self.flags ^= {flag}
            self.changed.notify_all()


@dataclass
class FakeGroup:
    """One rank's view of the node, as a process group."""

    node: FakeNode
    rank: int


@dataclass
class FakeMemory:
    """What a rendezvous gives a rank."""

    group: FakeGroup
    offset: int = 0

    def get_buffer(self, rank: int, shape: tuple[int, ...], dtype: torch.dtype, offset: int) -> Tensor:
        return self.group.node.staging[rank].view(shape)

    def put_signal(self, target: int, signal: int, timeout_ms: int) -> None:
        self.group.node.flip((self.group.rank, target, signal), up=True)

    def wait_signal(self, source: int, signal: int, timeout_ms: int) -> None:
        self.group.node.flip((source, self.group.rank, signal), up=False)


def rendezvous(own: Tensor, group: FakeGroup) -> FakeMemory:
    node = group.node
    with node.changed:
        node.staging[group.rank] = own
        node.changed.notify_all()
        assert node.changed.wait_for(lambda: len(node.staging) == node.size, PATIENCE_SECONDS)
    return FakeMemory(group)
