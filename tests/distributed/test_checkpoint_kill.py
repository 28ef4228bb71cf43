"""kill -9 at any instant of a save leaves a whole checkpoint: at random moments, and before every file operation."""

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from gloo_ranks import Rank, ranks
from ring_worker.checkpoint import Checkpoints

KEEP = 2
FILE_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "os.listdir")
Say = Callable[[Any], None]


def state_at(step: int) -> dict[str, Any]:
    """A state of which every number tells its step."""
    weights = {f"layer{i}.weight": torch.full((48, 32), float(step)) for i in range(6)}
    return {"model": weights, "progress": {"step": step, "seconds": step / 8}}


def require_whole(path: Path, allowed: set[int]) -> None:
    """The newest checkpoint in `path` is of an allowed step, loads, and holds that step's numbers alone."""
    checkpoints = Checkpoints(path, KEEP, None)
    step = checkpoints.latest()
    assert step in allowed
    assert step is not None
    state = state_at(-1)
    checkpoints.load(step, state)
    assert state["progress"] == {"step": step, "seconds": step / 8}
    assert all(torch.equal(weight, torch.full_like(weight, step)) for weight in state["model"].values())


def go_on_saving(group: dist.ProcessGroup, say: Say, path: Path) -> None:
    checkpoints = Checkpoints(path, KEEP, group)
    last = checkpoints.latest() or 0
    if last:
        checkpoints.load(last, state_at(last))
    say(last)
    for step in itertools.count(last + 1):
        checkpoints.save(step, state_at(step))
        say(step)


def kill_some_then_all(started: list[Rank], dice: random.Random) -> None:
    """One rank first, or all at once; the others follow after a while, as their agent would see to it."""
    first = dice.sample(started, dice.choice([1, len(started)]))
    for rank in first:
        rank.process.kill()
    time.sleep(dice.uniform(0, 0.1))
    for rank in started:
        rank.process.kill()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(8))
def test_ranks_killed_at_a_random_moment_lose_at_most_what_was_being_saved(tmp_path: Path, seed: int) -> None:
    dice, path, saved = random.Random(seed), tmp_path / "checkpoints", 0
    for _ in range(2):
        with ranks(2, tmp_path, go_on_saving, path) as started:
            assert started[0].next() >= saved
            time.sleep(dice.uniform(0, 0.5))
            kill_some_then_all(started, dice)
            saved = max([saved, *(said for said in started[0].rest() if isinstance(said, int))])
        if saved or any(path.glob("step-*")):
            require_whole(path, {saved, saved + 1})


def save_and_die(_: None, say: Say, path: Path, operation: int) -> None:
    """Save step 4 over what is there, and be killed before the n-th file operation of that save."""
    left = itertools.count(operation, -1)

    def die_in_time(event: str, _: tuple[Any, ...]) -> None:
        if event in FILE_OPERATIONS and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    Checkpoints(path, KEEP, None).save(4, state_at(4))
    say("survived")


@pytest.mark.timeout(300)
def test_a_writer_killed_before_any_file_operation_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    before, found = tmp_path / "before", []
    for step in (2, 3):
        Checkpoints(before, KEEP, None).save(step, state_at(step))
    for operation in itertools.count():
        path = tmp_path / f"{operation}"
        shutil.copytree(before, path)
        with ranks(1, tmp_path, save_and_die, path, operation) as (writer,):
            survived = writer.rest()
        require_whole(path, {3, 4})
        checkpoints = Checkpoints(path, KEEP, None)
        found.append(checkpoints.latest())
        assert len(checkpoints.steps()) >= KEEP
        checkpoints.save(5, state_at(5))
        assert len(list(path.iterdir())) == KEEP, "the next save leaves no rubbish"
        if survived:
            break
    assert found == sorted(found, key=lambda step: step or 0)
    assert found.count(3) > 10, "the save was over before it could be killed"
    assert found.count(4) > 1
