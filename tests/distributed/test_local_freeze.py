"""What hangs and does not die: only time tells, so these tests wait for the shortest time-out there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_bench import STEPS, Bench
from ring_operator.local.events import Restarting
from ring_worker.contract import ExitCode


@pytest.mark.parametrize(
    "orders, said",
    [({"0": "8 freeze", "1": "8 freeze"}, "made no progress for"), ({"1": "8 freeze-agent"}, "did not answer for")],
    ids=["ranks", "agent"],
)
def test_what_is_frozen_is_started_anew(tmp_path: Path, orders: dict[str, str], said: str) -> None:
    bench = Bench(tmp_path, overrides=("recovery.stallTimeoutSeconds=10",))
    for rank, order in orders.items():
        bench.order(rank, order)
    assert bench.run().exit_code == ExitCode.DONE
    restarts = [event.message for event in bench.events if isinstance(event, Restarting)]
    assert [said in message for message in restarts] == [True]
    assert bench.steps() == list(range(1, STEPS + 1))
