"""`/stacks`: what every rank is doing, also of those that hang, are stopped, or cannot answer yet."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest

from agent_bench import Bench, lives, rank_table, until
from agent_bench import bench as bench
from ring_worker.agent.stacks import RANK_BYTES, StackFile
from ring_worker.contract import AgentState


@pytest.fixture
def ranks(bench: Bench) -> list[int]:
    """Pids of two running ranks."""
    bench.start()
    bench.publish(rank_table(1))
    return [rank["pid"] for rank in bench.ranks(1)]


def parts(page: str) -> list[str]:
    """The heading, then a part for each rank."""
    return re.split(r"\n(?=rank )", page)


def test_a_rank_at_work_and_one_that_hangs_in_c_both_answer(bench: Bench, ranks: list[int]) -> None:
    bench.order(1, 1, "recv")
    until(lambda: not (bench.folder / "1-1.order").exists(), "the order is read")
    until(lambda: "in hang_in_c\n" in bench.get("/stacks"), "rank 1 hangs in recv")
    page = parts(bench.get("/stacks"))
    assert page[0].startswith("pod job-0 epoch 1 running\n")
    for number, (part, pid) in enumerate(zip(page[1:], ranks, strict=True)):
        assert re.match(rf"rank {number} pid {pid} state [SRD] \(.*\)\n.*\(most recent call first\):\n", part)
        assert "fake_rank.py" in part
    assert all(lives(pid) for pid in ranks)
    bench.order(1, 0, "step 4")
    until(lambda: (s := bench.status()) and s.step == 4, "rank 0 goes on")


def test_a_stopped_rank_is_named_and_the_others_answer(bench: Bench, ranks: list[int]) -> None:
    os.kill(ranks[0], signal.SIGSTOP)
    until(lambda: "state T" in bench.get("/stacks"), "rank 0 is stopped")
    _, stopped, other = parts(bench.get("/stacks"))
    assert stopped == f"rank 0 pid {ranks[0]} state T (stopped): stopped, no answer\n"
    assert "fake_rank.py" in other


def test_a_rank_that_goes_on_later_leaves_no_old_answer_behind(bench: Bench, ranks: list[int]) -> None:
    os.kill(ranks[0], signal.SIGSTOP)
    until(lambda: "state T" in bench.get("/stacks"), "rank 0 is stopped")
    os.kill(ranks[0], signal.SIGCONT)
    until(lambda: "stopped" not in bench.get("/stacks"), "rank 0 goes on")
    assert parts(bench.get("/stacks"))[1].count("(most recent call first)") == 1


def test_a_rank_that_is_still_starting_lives_on_and_is_said_to_be(bench: Bench) -> None:
    mute = "import os, sys, time; open(os.environ['FAKE_RANK_FOLDER'] + '/up', 'w'); time.sleep(600)"
    bench.start(rank=[sys.executable, "-c", mute])
    bench.publish(rank_table(1))
    until(lambda: (bench.folder / "up").exists(), "a rank is up")
    until(lambda: bench.get("/stacks").count("it is starting") == 2, "both ranks are asked and say nothing")
    status = bench.status()
    assert status is not None
    assert status.state == AgentState.RUNNING


def test_without_ranks_the_page_says_so(bench: Bench) -> None:
    bench.start()
    bench.until_state(AgentState.WAITING, 0)
    assert bench.get("/stacks") == "pod job-0 epoch 0 waiting\nno ranks run\n"


def test_long_stacks_lose_their_beginning_and_say_so() -> None:
    file = StackFile()
    os.write(file.descriptor, b"x" * (RANK_BYTES + 10) + b"the main thread")
    text = file.text()
    assert text.startswith("... 25 bytes before this are left out\n")
    assert text.endswith("the main thread")
    file.clear()
    os.write(file.descriptor, b"new")
    assert file.text() == "new"


def test_a_closed_file_is_empty() -> None:
    file = StackFile()
    os.write(file.descriptor, b"old")
    file.close()
    file.clear()
    assert (file.size(), file.text()) == (0, "")
