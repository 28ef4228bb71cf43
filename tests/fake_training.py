"""Data preparation and training without data and torch: the files, signals and exit codes of the real ones.

`fake_training.py prepare | train`. A step takes 20 ms; rank 0 keeps the journal and saves every fifth step. Orders of
the test are files in $FAKE_ORDERS, carried out once: `prepare` or `<rank>`, with `STEP exit CODE TEXT`, `STEP kill`,
`STEP kill-agent`, `STEP freeze`, `STEP freeze-agent`, `STEP deaf`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from fake_rank import step_record
from ring_worker.contract import (
    ENV_CONFIG,
    ENV_EPOCH,
    ENV_RESTARTS,
    ENV_TELEMETRY,
    ExitCode,
    MetricsLine,
    PreparationProgress,
    RunConfig,
)
from ring_worker.telemetry.emitter import Emitter
from ring_worker.telemetry.journal import Journal
from ring_worker.telemetry.record import CheckpointRecord

SAVE_EVERY = 5


def obey(name: str, step: int) -> None:
    order = Path(os.environ["FAKE_ORDERS"]) / name
    if not order.exists():
        return
    words = order.read_text().split(" ", 3)
    if step < int(words[0]):
        return
    if "always" not in words[-1]:
        order.unlink(missing_ok=True)
    if words[1] == "exit":
        print(words[3], file=sys.stderr, flush=True)
        os._exit(int(words[2]))
    if words[1] == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    number = signal.SIGKILL if words[1].startswith("kill") else signal.SIGSTOP
    os.kill(os.getppid() if words[1].endswith("-agent") else os.getpid(), number)


def prepare(config: RunConfig) -> None:
    folder = Path(config.data.prepared)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").write_text(PreparationProgress(3, 3, 100, 100, 0).to_json())
    time.sleep(0.2)
    obey("prepare", 0)


def train(config: RunConfig) -> int:
    rank, epoch = int(os.environ["RANK"]), int(os.environ[ENV_EPOCH])
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    emitter, journal = Emitter(os.environ[ENV_TELEMETRY]), Journal(Path(config.output) / "metrics.jsonl")
    saved = sorted(Path(config.checkpoint.path).glob("step-*/COMPLETE"))
    start = int(saved[-1].parent.name.split("-")[1]) if saved else 0
    if rank == 0:
        journal.truncate_after(start)
    for step in range(start + 1, config.training.steps + 1):
        time.sleep(0.02)
        keep_step(epoch, rank, step, stops)
        if rank == 0:
            journal.append(line(step, config.training.steps, epoch))
            emitter.send_line(line(step, config.training.steps, epoch))
        emitter.send(step_record(step))
        if rank == 0 and (step % SAVE_EVERY == 0 or stops):
            save(config, step, emitter)
        if stops:
            return ExitCode.TERMINATED
        obey(str(rank), step)
    if rank == 0:
        (Path(config.output) / "report.json").write_text(f'{{"restarts": {os.environ[ENV_RESTARTS]}}}')
    return ExitCode.DONE


def keep_step(epoch: int, rank: int, step: int, stops: list[int]) -> None:
    """Wait for every other rank to come to this step, as the collectives of a real one do."""
    kept, others = Path(os.environ["FAKE_ORDERS"] + ".steps"), range(int(os.environ["WORLD_SIZE"]))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{epoch}-{rank}-{step}").touch()
    while not stops and not all((kept / f"{epoch}-{other}-{step}").exists() for other in others):
        time.sleep(0.003)


def save(config: RunConfig, step: int, emitter: Emitter) -> None:
    folder = Path(config.checkpoint.path) / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "COMPLETE").touch()
    emitter.send(CheckpointRecord(step, 0.0, 1))


def line(step: int, total: int, epoch: int) -> MetricsLine:
    return MetricsLine(step, total, 4.0 / step, 1e-3, 1.0, 100 * step, 0.02 * step, 5000.0, epoch, ())


def main() -> int:
    config = RunConfig.from_json(Path(os.environ[ENV_CONFIG]).read_text())
    if sys.argv[1] == "prepare":
        prepare(config)
        return ExitCode.DONE
    return train(config)


if __name__ == "__main__":
    sys.exit(main())
