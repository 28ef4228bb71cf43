"""Checkpoints of one process: bit-exact, complete or absent, never unpickled before they are verified."""

import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st

from ring_worker.checkpoint import (
    CheckpointError,
    Checkpoints,
    DamagedCheckpointError,
    MismatchedCheckpointError,
    Progress,
    progress_of,
    training_state,
)
from ring_worker.checkpoint.folder import MARKER, Marker, Stored, read_marker
from ring_worker.checkpoint.tensors import fill_numbers, flatten
from ring_worker.contract import ExitCode
from ring_worker.contract.strict import dump
from small_training import small_model, train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(value: float = 0.0, rows: int = 3) -> dict[str, Any]:
    return {
        "model": {"a.weight": torch.full((rows, 2), float(value)), "b": torch.full((5,), value, dtype=torch.bfloat16)}
    }


def holds(state: dict[str, Any], value: float) -> bool:
    return all(bool((tensor == value).all()) for tensor in state["model"].values())


def saved(path: Path, *steps: int, keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(path, keep, None)
    for step in steps:
        checkpoints.save(step, weights(step))
    return checkpoints


def names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


@pytest.mark.parametrize("stopped_after", [0, 1, 7])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, stopped_after: int) -> None:
    model, optimizer = small_model(seed=0, width=6)
    undisturbed = train(model, optimizer, 1, 12)

    model, optimizer = small_model(seed=0, width=6)
    train(model, optimizer, 1, stopped_after)
    progress = Progress(stopped_after, stopped_after * 4, stopped_after * 400, stopped_after / 3)
    Checkpoints(tmp_path, 1, None).save(stopped_after, training_state(model, optimizer, progress))

    model, optimizer = small_model(seed=1, width=6)
    state = training_state(model, optimizer, Progress())
    Checkpoints(tmp_path, 1, None).load(stopped_after, state)
    assert progress_of(state) == progress
    assert train(model, optimizer, stopped_after + 1, 12) == undisturbed[stopped_after:]


def test_taking_the_state_of_a_fresh_optimizer_changes_nothing() -> None:
    model, optimizer = small_model(seed=0, width=6)
    undisturbed = train(model, optimizer, 1, 3)
    model, optimizer = small_model(seed=0, width=6)
    training_state(model, optimizer, Progress())
    assert train(model, optimizer, 1, 3) == undisturbed


def test_a_fresh_optimizer_whose_parameters_have_gradients_already_is_filled_too(tmp_path: Path) -> None:
    model, optimizer = small_model(seed=0, width=6)
    train(model, optimizer, 1, 2)
    Checkpoints(tmp_path, 1, None).save(2, training_state(model, optimizer, Progress(step=2)))
    model, fresh = small_model(seed=1, width=6)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # as with one buffer for all gradients, made before the first step
    Checkpoints(tmp_path, 1, None).load(2, training_state(model, fresh, Progress()))
    assert {int(state["step"]) for state in fresh.state.values()} == {2}
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters() if parameter.grad is not None)


def test_the_optimizers_state_is_saved_by_parameter_and_its_settings_are_not(tmp_path: Path) -> None:
    model, optimizer = small_model(seed=0, width=6)
    train(model, optimizer, 1, 2)
    flat = flatten(training_state(model, optimizer, Progress(step=2)))
    assert flat["optimizer.0.weight.step"].item() == 2
    assert {name.rpartition(".")[2] for name in flat if name.startswith("optimizer")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
def test_numbers_pass_through_tensors_unchanged(whole: int, real: float) -> None:
    state = {"progress": {"whole": whole, "real": real}}
    back: dict[str, Any] = {"progress": {"whole": 0, "real": 0.0}}
    fill_numbers(back, flatten(state))
    assert back == state
    assert type(back["progress"]["whole"]) is int


@pytest.mark.parametrize("value", ["text", None, True, [1], object()])
def test_what_is_neither_tensor_nor_number_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"extra\.thing: "):
        Checkpoints(tmp_path, 1, None).save(1, {"extra": {"thing": value}})


@pytest.mark.parametrize("keep, left", [(1, [5]), (2, [4, 5]), (3, [3, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_stay(tmp_path: Path, keep: int, left: list[int]) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3, 4, 5, keep=keep)
    assert checkpoints.steps() == left
    assert checkpoints.latest() == 5
    assert names(tmp_path) == [f"step-{step:08d}" for step in left]


def test_an_empty_or_absent_folder_has_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        checkpoints = Checkpoints(path, 1, None)
        assert (checkpoints.latest(), checkpoints.steps()) == (None, [])


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep: 0"):
        Checkpoints(tmp_path, 0, None)


def test_the_record_and_the_marker_tell_the_bytes_on_the_disk(tmp_path: Path) -> None:
    record = Checkpoints(tmp_path, 1, None).save(7, weights(7))
    on_disk = {p.name: p.stat().st_size for p in (tmp_path / "step-00000007").iterdir() if p.name != MARKER}
    assert record.bytes == sum(on_disk.values())
    assert {file.name: file.bytes for file in read_marker(tmp_path / "step-00000007").files} == on_disk
    assert (record.checkpoint_step, record.seconds > 0) == (7, True)


def test_rubbish_of_dead_writers_is_ignored_and_then_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".draft-00000002-dead")
    (tmp_path / ".draft-00000003-dead").mkdir()
    (tmp_path / "step-00000009").mkdir()  # nobody's: ignored and left alone
    (tmp_path / "notes.txt").touch()
    assert (checkpoints.latest(), checkpoints.steps()) == (1, [1])
    checkpoints.save(2, weights(2))
    assert names(tmp_path) == ["notes.txt", "step-00000001", "step-00000002", "step-00000009"]


def test_a_step_saved_again_replaces_its_older_self(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    checkpoints.save(1, weights(10))
    assert names(tmp_path) == ["step-00000001.1", "step-00000002"]
    assert checkpoints.latest() == 1
    checkpoints.load(1, state := weights())
    assert holds(state, 10)


def test_a_run_gone_on_from_an_older_one_does_not_meet_the_damaged_one_again(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20, 30, keep=2)
    damage_bit(tmp_path / "step-00000030" / "__0_0.distcp")
    checkpoints.load(20, weights())
    checkpoints.save(25, weights(25))
    assert checkpoints.latest() == 25
    assert checkpoints.steps() == [25, 30]
    checkpoints.save(30, weights(31))
    checkpoints.load(30, state := weights())
    assert holds(state, 31)
    assert checkpoints.steps() == [25, 30]


def test_a_checkpoint_is_loaded_by_its_path_too(tmp_path: Path) -> None:
    saved(tmp_path / "old", 4)
    Checkpoints(tmp_path / "new", 1, None).load(tmp_path / "old" / "step-00000004", state := weights())
    assert holds(state, 4)


def test_sections_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    model, optimizer = small_model(seed=0, width=6)
    checkpoints = Checkpoints(tmp_path, 1, None)
    checkpoints.save(1, training_state(model, optimizer, Progress(step=1)))
    other, _ = small_model(seed=1, width=6)
    checkpoints.load(1, {"model": other.state_dict()})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def damage_growth(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize(
    "damage, words",
    [
        (damage_bit, "SHA-256"),
        (damage_end, "were written"),
        (damage_growth, "were written"),
        (Path.unlink, "missing"),
    ],
)
def test_damage_is_named_with_the_way_out_and_no_other_one_is_taken(
    tmp_path: Path, name: str, damage: Callable[[Path], None], words: str
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002" / name)
    assert checkpoints.latest() == 2
    with pytest.raises(DamagedCheckpointError, match=words) as caught:
        checkpoints.load(2, state := weights(-1.0))
    assert str(tmp_path / "step-00000002" / name) in str(caught.value)
    assert "checkpoint.resume: PATH" in str(caught.value)
    assert "step-00000001" in str(caught.value)
    assert caught.value.exit_code is ExitCode.CORRUPT_DATA
    assert holds(state, -1.0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 2}', "\udcff"])
def test_an_unreadable_marker_is_damage_and_not_absence(tmp_path: Path, content: str) -> None:
    checkpoints = saved(tmp_path, 1, 2, keep=1)
    (tmp_path / "step-00000002" / MARKER).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DamagedCheckpointError, match="COMPLETE"):
        checkpoints.latest()
    with pytest.raises(DamagedCheckpointError, match="COMPLETE"):
        checkpoints.load(2, weights())
    checkpoints.save(3, weights(3))
    assert names(tmp_path) == ["step-00000002", "step-00000003"], "what cannot be read is left as evidence"


def test_a_marker_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "secret").write_bytes(b"x")
    stored = Stored.of(tmp_path / "secret")
    marker = Marker(1, 1, 1, None, (Stored("../secret", stored.bytes, stored.sha256),))
    (tmp_path / "step-00000001" / MARKER).write_text(dump(marker))
    with pytest.raises(DamagedCheckpointError, match=r"\.\./secret"):
        checkpoints.load(1, weights())


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("sealed", [False, True], ids=["under the old hash", "with a marker that vouches for it"])
def test_code_in_the_index_is_never_run(tmp_path: Path, sealed: bool) -> None:
    checkpoints = saved(tmp_path / "checkpoints", 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    if sealed:
        seal(folder)
    with pytest.raises(DamagedCheckpointError, match=r"\.metadata"):
        checkpoints.load(1, weights())
    assert not (tmp_path / "trace").exists()


def test_a_checkpoint_that_holds_an_object_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"model.thing": Bomb(tmp_path / "trace")}, checkpoint_id=folder, no_dist=True)
    seal(folder)
    with pytest.raises(DamagedCheckpointError, match="BytesStorageMetadata"):
        Checkpoints(tmp_path / "checkpoints", 1, None).load(1, weights())
    assert not (tmp_path / "trace").exists()


def seal(folder: Path) -> None:
    files = tuple(Stored.of(path) for path in sorted(folder.iterdir()) if path.name != MARKER)
    (folder / MARKER).write_text(dump(Marker(1, 1, 1, None, files)))


@pytest.mark.parametrize(
    "wanted, words",
    [
        (weights(rows=4), r"a\.weight is torch\.float32 \[3, 2\] in the checkpoint, but torch\.float32 \[4, 2\]"),
        ({"model": {"a.weight": torch.zeros(3, 2)}}, r"b is torch\.bfloat16 \[5\] in the checkpoint, but absent"),
        ({"model": {**weights()["model"], "c": torch.zeros(1)}}, r"model\.c is absent in the checkpoint"),
        ({"model": {**weights()["model"], "b": torch.zeros(5)}}, r"b is torch\.bfloat16 \[5\].*torch\.float32"),
        ({**weights(), "other": {"x": 1}}, r"other\.x is absent"),
    ],
)
def test_another_model_is_refused_with_both_shapes(tmp_path: Path, wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(MismatchedCheckpointError, match=words) as caught:
        saved(tmp_path, 1).load(1, wanted)
    assert caught.value.exit_code is ExitCode.INVALID_CONFIG


@pytest.mark.parametrize(
    "which, words",
    [
        (9, "no complete checkpoint of step 9"),
        (Path("nowhere"), "nowhere: no such checkpoint"),
        (Path("step-00000005"), "holds no file COMPLETE. Complete ones beside it: step-00000001"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, which: int | Path, words: str) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "step-00000005").mkdir()
    with pytest.raises(MismatchedCheckpointError, match=words):
        checkpoints.load(tmp_path / which if isinstance(which, Path) else which, weights())


def test_a_full_disk_is_told_and_the_old_one_stays(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="step 2 could not be written") as caught:
            checkpoints.save(2, weights(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code is ExitCode.INFRASTRUCTURE
    assert "Complete ones are untouched: 1" in str(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    checkpoints.load(1, state := weights())
    assert holds(state, 1)


def test_a_path_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="could not be written"):
        Checkpoints(tmp_path / "file", 1, None).save(1, weights())


def test_the_marker_is_plain_json(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    marker = json.loads((tmp_path / "step-00000001" / MARKER).read_text())
    assert (marker["version"], marker["step"], marker["world_size"]) == (1, 1, 1)
    assert all(len(file["sha256"]) == 64 for file in marker["files"])
