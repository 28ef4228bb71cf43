"""One program of the test cluster as a process: started, watched until it is ready, killed, frozen, started again.

It dies with the process that started it, however that ends (`ring_worker.tether`), and is in a session of its own, so
that Ctrl-C reaches only the test, which then ends it. Its output goes to a log, whose end an error shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clusterkit.progress import tail
from ring_worker.tether import tethered

READY_SECONDS = 90.0
LOOK_SECONDS = 0.05


class ComponentError(Exception):
    """A program ended or did not become ready; the text has the end of its log."""


class Component:
    """`ready`: whether it serves; asked until it says yes. Start it from a thread that outlives it: the main one."""

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it and do not wait."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                tethered(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                env={**os.environ, "HOME": str(self.log.parent)},  # no settings of the user's
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Raises ComponentError."""
        deadline = time.monotonic() + seconds
        while not self._ready():
            if not self.alive:
                code = self._process.returncode if self._process else "none"
                raise ComponentError(
                    f"{self.name} ended with exit code {code}. The end of {self.log}:\n{tail(self.log)}"
                )
            if time.monotonic() > deadline:
                raise ComponentError(
                    f"{self.name} was not ready within {seconds:.0f} s. The end of {self.log}:\n{tail(self.log)}"
                )
            time.sleep(LOOK_SECONDS)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL; also ends a frozen one. Nothing happens where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again with the same command, so on the same port and data."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} was never started"
        assert self.alive, f"{self.name} does not run"
        self._process.send_signal(number)
