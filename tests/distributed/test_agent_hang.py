"""Ranks that hang in a collective tell by `/stacks` where they hang, and go on hanging."""

from __future__ import annotations

import sys
from pathlib import Path

from agent_bench import Bench, rank_table, until
from agent_bench import bench as bench
from ring_operator.local.kubelet import free_port
from ring_worker.contract import AgentState

RANKS = [sys.executable, str(Path(__file__).parents[1] / "hanging_ranks.py")]


def test_a_rank_that_hangs_in_gloo_shows_its_stack(bench: Bench) -> None:
    bench.start(rank=RANKS)
    bench.until_state(AgentState.WAITING, 0)
    bench.publish(rank_table(1, port=free_port()))
    until(lambda: "in asleep\n" in bench.get("/stacks"), "rank 0 sleeps", seconds=120)
    page = until(lambda: "in barrier\n" in (page := bench.get("/stacks")) and page, "rank 1 waits", seconds=120)
    head, first, second = page.split("\nrank ")
    assert head == "pod job-0 epoch 1 running\n"
    assert "in asleep\n" in first
    assert "in barrier\n" in second
    assert 'hanging_ranks.py", line' in second
