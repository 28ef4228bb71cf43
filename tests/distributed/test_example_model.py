"""The example that the documentation shows, as a reader would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ring_model.py"


def losses(*launcher: str) -> list[str]:
    command = [sys.executable, *launcher, str(EXAMPLE)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_example_trains_alike_on_one_process_and_on_four() -> None:
    alone = losses()
    assert len(alone) == 3
    assert losses("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4") == alone


def test_the_model_in_it_has_the_twenty_lines_that_are_promised() -> None:
    text = EXAMPLE.read_text().split("# the model\n")[1].split("# the end of the model")[0]
    assert len([line for line in text.splitlines() if line.strip()]) <= 22
