"""A rank without torch, led by files: it says that it lives, then does what the test's orders say.

`FAKE_RANK_FOLDER`: where it writes `<epoch>-<rank>.json` (pid and environment) and reads orders from
`<epoch>-<rank>.order`: `exit CODE TEXT`, `step N`, `log N` (a line of metrics), `recv` (hang in C). On SIGTERM it ends
with 143, unless `FAKE_RANK_DEAF` is set.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from ring_worker.contract import ENV_EPOCH, ENV_TELEMETRY, ExitCode, MetricsLine, RingFigures
from ring_worker.stacks import answer_for_stacks
from ring_worker.telemetry.emitter import Emitter
from ring_worker.telemetry.record import PassTimes, StepRecord


def main() -> None:
    folder = Path(os.environ["FAKE_RANK_FOLDER"])
    name = f"{os.environ[ENV_EPOCH]}-{os.environ['RANK']}"
    answer_for_stacks(os.environ)
    emitter = Emitter(os.environ[ENV_TELEMETRY])
    deaf = "FAKE_RANK_DEAF" in os.environ
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: sys.exit(ExitCode.TERMINATED))
    half = folder / f"{name}.half"
    half.write_text(json.dumps({"pid": os.getpid(), **os.environ}))
    half.rename(folder / f"{name}.json")
    order = folder / f"{name}.order"
    while True:
        time.sleep(0.02)
        if order.exists():
            words = order.read_text().split(" ", 2)
            order.unlink()
            if words[0] == "step":
                emitter.send(step_record(int(words[1])))
            elif words[0] == "recv":
                hang_in_c()
            elif words[0] == "log":
                emitter.send_line(metrics_line(int(words[1]), int(os.environ[ENV_EPOCH])))
            else:
                print(words[2], flush=True)
                os._exit(int(words[1]))


def step_record(step: int) -> StepRecord:
    rank = int(os.environ["RANK"])
    times = PassTimes(wall=1.0, compute=0.8, comm=0.4, exposed=0.1, ideal=0.7, bytes=10, flops=1e9, passes=1)
    return StepRecord(rank, 0, rank, step, 100, 0.5, 2.0, 1.0, 1e-3, times, times)


def hang_in_c() -> None:
    ends = socket.socketpair()
    ends[0].recv(1)


def metrics_line(step: int, epoch: int) -> MetricsLine:
    ring = RingFigures(0, 2.0, 1.6, 0.8, 0.2, 0.0, 1.4, 20, 1.0)
    return MetricsLine(step, 100, 2.0, 1e-3, 1.0, 100 * step, 0.5 * step, 200.0, epoch, (ring,))


if __name__ == "__main__":
    main()
