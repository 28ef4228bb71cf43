"""Checkpoints over several gloo ranks: written in parts, loaded by any number, and failing on all ranks alike."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gloo_ranks import outcomes
from ring_worker.checkpoint import Checkpoints, Progress, Writer, progress_of, training_state
from ring_worker.checkpoint.folder import read_marker
from ring_worker.contract import Degrees
from small_training import small_model, train

Say = Callable[[Any], None]
STEPS = 3


def trained_and_saved(group: dist.ProcessGroup, say: Say, path: Path, degrees: Degrees) -> None:
    model, optimizer = small_model(seed=0, width=48)
    train(model, optimizer, 1, STEPS)
    checkpoints = Checkpoints(path, 2, group, Writer(degrees=degrees))
    record = checkpoints.save(STEPS, training_state(model, optimizer, Progress(STEPS, 24, 999, 1.25)))
    say((record.checkpoint_step, record.bytes, checkpoints.latest()))


def loaded_and_trained_on(group: dist.ProcessGroup, say: Say, path: Path) -> None:
    model, optimizer = small_model(seed=1, width=48)
    state = training_state(model, optimizer, Progress())
    checkpoints = Checkpoints(path, 2, group)
    checkpoints.load(checkpoints.latest() or 0, state)
    say((progress_of(state), train(model, optimizer, STEPS + 1, STEPS + 3)))


def undisturbed() -> list[float]:
    model, optimizer = small_model(seed=0, width=48)
    return train(model, optimizer, 1, STEPS + 3)[STEPS:]


@pytest.mark.parametrize("saved_by, loaded_by", [(4, 2), (1, 4), (2, 1), (2, 2)])
def test_what_some_ranks_saved_any_number_loads_bit_for_bit(tmp_path: Path, saved_by: int, loaded_by: int) -> None:
    torch.set_num_threads(1)
    path = tmp_path / "checkpoints"
    saved = outcomes(saved_by, tmp_path, trained_and_saved, path, Degrees(context=saved_by))
    assert saved == [(STEPS, read_marker(path / "step-00000003").bytes, STEPS)] * saved_by
    loaded = outcomes(loaded_by, tmp_path, loaded_and_trained_on, path)
    assert loaded == [(Progress(STEPS, 24, 999, 1.25), undisturbed())] * loaded_by


def test_the_ranks_divide_the_writing_and_the_marker_tells_of_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    outcomes(3, tmp_path, trained_and_saved, path, Degrees(context=3))
    marker = read_marker(path / "step-00000003")
    of_rank = {file.name: file.bytes for file in marker.files}
    assert sorted(of_rank) == [".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"]
    assert max(of_rank.values()) < 0.6 * marker.bytes
    assert (marker.step, marker.world_size, marker.degrees) == (STEPS, 3, Degrees(context=3))


def saved_with_a_full_disk(group: dist.ProcessGroup, say: Say, path: Path, poor: int) -> None:
    """Step 1 succeeds; at step 2 the rank `poor` can write no file beyond 1,000 bytes."""
    checkpoints = Checkpoints(path, 2, group)
    state: dict[str, Tensor] = {f"w{i}": torch.full((64, 64), float(i)) for i in range(8)}
    checkpoints.save(1, {"model": state})
    if dist.get_rank(group) == poor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    checkpoints.save(2, {"model": state})


@pytest.mark.parametrize("poor", [0, 1])
def test_a_rank_that_cannot_write_fails_on_all_and_leaves_the_old_one(tmp_path: Path, poor: int) -> None:
    path = tmp_path / "checkpoints"
    said = outcomes(2, tmp_path, saved_with_a_full_disk, path, poor)
    for kind, text in said:
        assert kind == "CheckpointError"
        assert f"rank {poor}: " in text
        assert "step 2 could not be written" in text
        assert "Complete ones are untouched: 1." in text
    assert [found.name for found in path.iterdir()] == ["step-00000001"]
    Checkpoints(path, 2, None).load(1, {"model": {f"w{i}": torch.empty(64, 64) for i in range(8)}})


def test_damage_is_found_by_one_rank_and_raised_on_all(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    outcomes(2, tmp_path, trained_and_saved, path, Degrees(context=2))
    victim = path / "step-00000003" / "__1_0.distcp"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    said = outcomes(3, tmp_path, loaded_and_trained_on, path)
    assert {kind for kind, _ in said} == {"DamagedCheckpointError"}
    assert all("__1_0.distcp: SHA-256" in text for _, text in said)
