"""Run a long command and say so: what runs, for how long already. Its output goes to a log; a failure shows its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Say = Callable[[str], None]
SAY_EVERY_SECONDS = 30
END_SECONDS = 3
TAIL_LINES = 25


class CommandError(Exception):
    """A command ended with another exit code than 0; the text has the last lines it printed."""


def say_on_stderr(line: str) -> None:
    print(f"[cluster] {line}", file=sys.stderr, flush=True)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({log}: {error.strerror})"


def run_shown(
    command: Sequence[str],
    folder: Path,
    log: Path,
    what: str,
    *,
    environment: Mapping[str, str] | None = None,
    say: Say = say_on_stderr,
) -> None:
    """Raises CommandError. An interrupt ends the command too."""
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        while (code := _wait(process)) is None:
            say(f"{what}: {_elapsed(started)}")
    finally:
        if process.poll() is None:
            _end(process)
    if code:
        raise CommandError(f"{' '.join(command)} ended with exit code {code} after {_elapsed(started)}:\n{tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(SAY_EVERY_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
