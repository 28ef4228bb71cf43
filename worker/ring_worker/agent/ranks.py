"""The rank processes of one pod in one epoch: started together, watched together, killed together.

Each rank has a session of its own, so that a Ctrl-C at a terminal does not reach it and a kill takes its children
along, and is tethered to the agent (`tether.py`), so that it cannot outlive it. What it prints goes on line by line
with a prefix; the last lines are kept, since they say why it died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ring_worker.agent.stacks import RankStacks, StackFile, collect
from ring_worker.contract import (
    ENV_EPOCH,
    ENV_RESTARTS,
    ENV_STACKS,
    ENV_TELEMETRY,
    ENV_TOKEN,
    Member,
    RankTable,
    likely_cause,
)
from ring_worker.tether import tethered

TAIL_LINES = 40
_TAIL_CHARACTERS = 16_000
_LINE_BYTES = 4096  # a longer line is cut in pieces: output without line breaks must not grow in memory
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RankFailure:
    """`exit_code` as Popen gives it: negative when killed by that signal. `error`: the last lines printed."""

    rank: int
    exit_code: int
    error: str


def rank_environment(table: RankTable, member: Member, local_rank: int, telemetry: int) -> dict[str, str]:
    """What a rank is told beside the pod's own environment. `telemetry`: a descriptor, which it inherits."""
    return {
        "RANK": str(member.first_rank + local_rank),
        "WORLD_SIZE": str(table.world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(member.ranks),
        "MASTER_ADDR": table.master.address,
        "MASTER_PORT": str(table.master.port),
        ENV_EPOCH: str(table.epoch),
        ENV_RESTARTS: str(table.restarts),
        ENV_TOKEN: table.token,
        ENV_TELEMETRY: str(telemetry),
        "PYTHONUNBUFFERED": "1",
    }


class Rank:
    """One process and its output."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self.number = int(environment["RANK"])
        self._say = say
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._stack_file = StackFile()
        try:
            self._process = self._start(command, environment)
        except OSError:
            self._stack_file.close()
            raise
        self.stacks = RankStacks(self.number, self._process, self._stack_file)
        self._pump = threading.Thread(target=self._forward, name=f"rank-{self.number}", daemon=True)
        self._pump.start()

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        stacks = self._stack_file.descriptor
        return subprocess.Popen(
            tethered(command),
            env={**os.environ, **environment, ENV_STACKS: str(stacks)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[int(environment[ENV_TELEMETRY]), stacks],
        )

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def terminate(self) -> None:
        """Ask the rank alone: its children are its own to stop."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        self._process.wait()
        self._pump.join(_DRAIN_SECONDS)
        self._stack_file.close()

    def failure(self) -> RankFailure:
        """Only after its exit."""
        self._pump.join(_DRAIN_SECONDS)
        return RankFailure(self.number, self._process.returncode, "\n".join(self._tail)[-_TAIL_CHARACTERS:])

    def _forward(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in iter(lambda: stream.readline(_LINE_BYTES), b""):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                self._tail.append(text)
                self._say(f"[rank {self.number}] {text}")


class RankGroup:
    """All ranks of this pod in one epoch. Raises OSError where the machine cannot start them; none is left then."""

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]], say: Callable[[str], None]):
        self._ranks: list[Rank] = []
        try:
            for environment in environments:
                self._ranks.append(Rank(command, environment, say))
        except OSError:
            self.kill()
            raise

    def exit_codes(self) -> list[int | None]:
        """None: still running."""
        return [rank.exit_code for rank in self._ranks]

    def failure(self, fine: frozenset[int]) -> RankFailure | None:
        """The likely first of the ranks that ended with a code not in `fine`; None where there is none.

        A rank that loses its peer dies a moment later, so several may be found dead at one look.
        """
        dead = [r for r in self._ranks if r.exit_code is not None and r.exit_code not in fine]
        return min(dead, key=lambda r: likely_cause(r.exit_code or 0)).failure() if dead else None

    def stacks(self) -> str:
        """What all ranks are doing; takes ANSWER_SECONDS where one does not answer. From any thread, one at a time."""
        return collect([rank.stacks for rank in self._ranks])

    def terminate(self) -> None:
        for rank in self._ranks:
            rank.terminate()

    def kill(self) -> None:
        """SIGKILL to all, children of theirs included; returns when they are gone."""
        for rank in self._ranks:
            rank.send(signal.SIGKILL)
        for rank in self._ranks:
            rank.wait()
