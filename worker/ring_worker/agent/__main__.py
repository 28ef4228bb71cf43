"""`python -m ring_worker.agent [-- COMMAND...]`: read the environment, then supervise."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ring_worker.agent.server import Page, parse_address, serve
from ring_worker.agent.supervisor import Printer, Supervisor
from ring_worker.agent.table import TableWatch
from ring_worker.contract import (
    ENV_AFTER_EPOCH,
    ENV_CONFIG,
    ENV_POD,
    ENV_RANKS,
    ENV_STATUS_ADDRESS,
    ContractError,
    ExitCode,
    RunConfig,
)
from ring_worker.telemetry.exporter import CONTENT_TYPE, Exporter


@dataclass(frozen=True, slots=True)
class Settings:
    """The container's environment, read once."""

    config: RunConfig
    ranks: Path
    pod: str
    address: tuple[str, int]
    after_epoch: int = 0

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Raises ContractError naming the variable, or OSError naming the file."""
        for name in (ENV_CONFIG, ENV_RANKS, ENV_POD, ENV_STATUS_ADDRESS):
            if not environment.get(name):
                raise ContractError(f"{name}: not set; the agent is started by a pod of the job")
        return cls(
            config=RunConfig.from_json(Path(environment[ENV_CONFIG]).read_text(encoding="utf-8")),
            ranks=Path(environment[ENV_RANKS]),
            pod=environment[ENV_POD],
            address=parse_address(environment[ENV_STATUS_ADDRESS]),
            after_epoch=_number(environment.get(ENV_AFTER_EPOCH, "0")),
        )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ContractError(f"{ENV_AFTER_EPOCH}: {text!r} is not the number of an epoch")
    return int(text)


def supervise(settings: Settings, command: Sequence[str]) -> int:
    job_uid = settings.config.job_uid
    say = Printer()
    exporter = Exporter(settings.config.job, settings.pod)
    watch = TableWatch(settings.ranks, job_uid, say.agent, settings.after_epoch)
    supervisor = Supervisor(settings.pod, command, watch, exporter, say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    pages = {
        "/status": Page("application/json", lambda: supervisor.status(job_uid).to_json().encode()),
        "/metrics": Page(CONTENT_TYPE, exporter.render),
        "/stacks": Page("text/plain; charset=utf-8", lambda: supervisor.stacks().encode()),
    }
    serve(settings.address, pages)
    return supervisor.run()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ring_worker.agent", description="Run the ranks of one pod.")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what a rank runs (default: the training)")
    command = parser.parse_args(arguments).command or [sys.executable, "-m", "ring_worker.train"]
    try:
        settings = Settings.read(os.environ)
    except (ContractError, OSError) as error:
        print(f"[agent] {error}", file=sys.stderr)
        return ExitCode.INVALID_CONFIG
    try:
        return supervise(settings, command)
    except OSError as error:
        print(f"[agent] {error}", file=sys.stderr)
        return ExitCode.INFRASTRUCTURE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
