"""Why an epoch ended, and what can be done about it."""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

from ring_worker.contract import ExitCode, likely_cause


class FailureClass(enum.StrEnum):
    """What a failure asks for."""

    FINAL = "final"  # the same would happen again
    APPLICATION = "application"
    INFRASTRUCTURE = "infrastructure"  # not the program's fault: killed, cut off, gone


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an epoch ended. `exit_code`: negative when killed by that signal; None: vanished, or it hangs.

    `rank` None: the pod itself failed. `error`: the last lines it printed. `reason`: what Kubernetes says of the pod's
    end, and `blame` the class that follows from that, whatever the exit code.
    """

    pod: str
    rank: int | None = None
    exit_code: int | None = None
    error: str = ""
    stalled_seconds: float = 0.0
    silent_seconds: float = 0.0
    behind_seconds: float = 0.0
    reason: str = ""
    blame: FailureClass | None = None

    @property
    def kind(self) -> FailureClass:
        if self.blame is not None:
            return self.blame
        code = self.exit_code
        if code in (ExitCode.INVALID_CONFIG, ExitCode.CORRUPT_DATA, ExitCode.NO_RESTART):
            return FailureClass.FINAL
        if code is None or code < 0 or code in (ExitCode.INFRASTRUCTURE, ExitCode.TERMINATED):
            return FailureClass.INFRASTRUCTURE
        return FailureClass.APPLICATION

    @property
    def weight(self) -> int:
        """Sort key: smaller is more likely the cause of the others."""
        return likely_cause(-signal.SIGKILL if self.exit_code is None else self.exit_code)

    @property
    def who(self) -> str:
        return self.pod if self.rank is None else f"rank {self.rank} in {self.pod}"

    def __str__(self) -> str:
        return f"{self._what()}: {self.reason}" if self.reason else self._what()

    def _what(self) -> str:
        if self.stalled_seconds:
            return f"{self.who} made no progress for {self.stalled_seconds:.0f} s"
        if self.silent_seconds:
            return f"the agent of {self.who} did not answer for {self.silent_seconds:.0f} s"
        if self.behind_seconds:
            return f"the agent of {self.who} answers, but took up no rank table for {self.behind_seconds:.0f} s"
        if self.exit_code is None:
            return f"{self.who} vanished"
        if self.exit_code < 0:
            return f"{self.who} was killed by {_signal_name(-self.exit_code)}"
        return f"{self.who} ended with exit code {self.exit_code}{_meaning(self.exit_code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _meaning(exit_code: int) -> str:
    try:
        return f" ({ExitCode(exit_code).name.lower().replace('_', ' ')})"
    except ValueError:
        return ""
