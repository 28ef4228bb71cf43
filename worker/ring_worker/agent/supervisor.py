"""The agent's loop: new epoch -> ranks; a dead rank -> broken; all done -> exit.

Everything happens in the main thread, in one loop that looks ten times a second (ranks are tethered to the thread that
starts them). The HTTP threads read one frozen `Epoch`, which the loop replaces as a whole.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ring_worker.agent.ranks import RankFailure, RankGroup, rank_environment
from ring_worker.agent.table import TableWatch
from ring_worker.agent.telemetry import TelemetrySocket
from ring_worker.contract import AgentState, AgentStatus, ExitCode, Member, RankTable
from ring_worker.telemetry.exporter import Exporter

LOOK_SECONDS = 0.1
_DONE = frozenset({int(ExitCode.DONE)})
_OBEYED = frozenset({int(ExitCode.DONE), int(ExitCode.TERMINATED)})


class Printer:
    """Lines from many threads to standard output, whole. A full disk silences it and must stop nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except (OSError, ValueError):
                return

    def agent(self, line: str) -> None:
        self(f"[agent] {line}")


@dataclass(frozen=True, slots=True)
class Epoch:
    """`number` 0: none yet. `started`: time.monotonic."""

    number: int
    state: AgentState
    started: float
    failure: RankFailure | None = None


class Supervisor:
    """One pod's ranks over all epochs. `run` returns the agent's exit code."""

    def __init__(self, pod: str, command: Sequence[str], watch: TableWatch, exporter: Exporter, say: Printer) -> None:
        self._pod = pod
        self._command = command
        self._watch = watch
        self._exporter = exporter
        self._say = say
        self._epoch = Epoch(0, AgentState.WAITING, time.monotonic())
        self._group: RankGroup | None = None
        self._telemetry: TelemetrySocket | None = None
        self._stop_asked = False
        self._asking = threading.Lock()

    def stop(self) -> None:
        """From a signal handler: let the ranks save a checkpoint, then return from `run`."""
        self._stop_asked = True

    def status(self, job_uid: str) -> AgentStatus:
        """From any thread."""
        epoch, failure = self._epoch, self._epoch.failure
        progress = max(epoch.started, self._exporter.last_progress or 0.0)
        return AgentStatus(
            pod=self._pod,
            job_uid=job_uid,
            epoch=epoch.number,
            state=epoch.state.value,
            step=self._exporter.last_step,
            progress_age_seconds=max(0.0, time.monotonic() - progress),
            checkpoint_step=self._exporter.checkpoint_step,
            failed_rank=failure.rank if failure else None,
            exit_code=failure.exit_code if failure else None,
            error=failure.error if failure else "",
            metrics=self._exporter.metrics,
        )

    def stacks(self) -> str:
        """The page of `/stacks`. From any thread."""
        epoch, group = self._epoch, self._group
        head = f"pod {self._pod} epoch {epoch.number} {epoch.state.value}\n"
        if group is None:
            return f"{head}no ranks run\n"
        with self._asking:
            return f"{head}\n{group.stacks()}"

    def run(self) -> int:
        """Until the ranks are done or a stop was asked."""
        try:
            while True:
                if self._stop_asked:
                    return self._obey()
                if table := self._watch.poll(self._epoch.number):
                    self._start(table)
                if self._all_done():
                    return ExitCode.DONE
                time.sleep(LOOK_SECONDS)
        finally:
            self._end_ranks()

    def _start(self, table: RankTable) -> None:
        self._end_ranks()
        member = table.member(self._pod)
        if member is None:
            self._say.agent(f"epoch {table.epoch}: no part in it for {self._pod}")
            self._epoch = Epoch(table.epoch, AgentState.WAITING, time.monotonic())
            return
        first, last = member.first_rank, member.first_rank + member.ranks - 1
        self._say.agent(f"epoch {table.epoch}: ranks {first} to {last} of {table.world_size}")
        self._exporter.epoch_started(member, table.degrees, table.epoch, table.restarts)
        self._epoch = Epoch(table.epoch, AgentState.RUNNING, time.monotonic())
        try:
            self._launch(table, member)
        except OSError as error:
            self._broken(RankFailure(first, ExitCode.INFRASTRUCTURE, f"cannot start the ranks: {error}"))

    def _launch(self, table: RankTable, member: Member) -> None:
        self._telemetry = telemetry = TelemetrySocket(self._exporter.feed)
        environments = [rank_environment(table, member, i, telemetry.descriptor) for i in range(member.ranks)]
        self._group = RankGroup(self._command, environments, self._say)

    def _all_done(self) -> bool:
        if self._group is None:
            return False
        if failure := self._group.failure(fine=_DONE):
            self._broken(failure)
            return False
        done = None not in self._group.exit_codes()
        if done:
            self._epoch = dataclasses.replace(self._epoch, state=AgentState.SUCCEEDED)
            self._say.agent(f"epoch {self._epoch.number}: all ranks are done")
        return done

    def _broken(self, failure: RankFailure) -> None:
        self._end_ranks()
        self._epoch = dataclasses.replace(self._epoch, state=AgentState.BROKEN, failure=failure)
        self._say.agent(f"epoch {self._epoch.number} is broken: rank {failure.rank} {_ending(failure.exit_code)}")

    def _obey(self) -> int:
        """Forward the stop and wait. The grace period is kept by whoever asked: SIGKILL takes the ranks along."""
        self._say.agent("asked to stop")
        if self._group is None:
            return ExitCode.TERMINATED
        self._epoch = dataclasses.replace(self._epoch, state=AgentState.STOPPING)
        self._group.terminate()
        while None in (codes := self._group.exit_codes()):
            if failure := self._group.failure(fine=_OBEYED):  # the others cannot finish without it
                self._broken(failure)
                return _as_exit_code(failure.exit_code)
            time.sleep(LOOK_SECONDS)
        if failure := self._group.failure(fine=_OBEYED):
            self._broken(failure)
            return _as_exit_code(failure.exit_code)
        return ExitCode.TERMINATED if ExitCode.TERMINATED in codes else ExitCode.DONE

    def _end_ranks(self) -> None:
        if self._group is not None:
            self._group.kill()
            self._group = None
        if self._telemetry is not None:
            self._telemetry.close()
            self._telemetry = None


def _ending(exit_code: int) -> str:
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


def _as_exit_code(code: int) -> int:
    """As a shell gives it: 128 + signal."""
    return 128 - code if code < 0 else code
