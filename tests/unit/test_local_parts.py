"""The parts of local mode that need no process: pods read, GPUs chosen, folders kept, metrics followed."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_bench import MANIFEST, tiny_job
from ring_operator.errors import UserError
from ring_operator.local.changes import changed_fields, manifest_of
from ring_operator.local.folder import RunFolder
from ring_operator.local.job import Here, cache_folder, local_job, with_absolute_paths
from ring_operator.local.machine import find_machines, parse_listing, select_gpus
from ring_operator.local.metrics import MetricsTail
from ring_operator.local.pod import Place, read_pod, swap_paths
from ring_operator.local.supervise import LocalJob
from ring_operator.plan import Machines, plan
from ring_operator.spec import load_manifest
from ring_worker.contract import MetricsLine, RunConfig

CONTAINER: dict[str, Any] = {"name": "c", "command": ["python", "-m", "x"]}
UUIDS = ("GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333")


def assembled(folder: Path, *overrides: str) -> LocalJob:
    job = load_manifest(MANIFEST, overrides=overrides)[0]
    machines = Machines(nodes=2, gpus_per_node=0, cpus_per_node=1)
    return local_job(job, plan(job, machines), RunFolder(folder / "run"), Here((), folder / "cache"))


def pod_of(container: dict[str, Any], volumes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    metadata = {"name": "p", "annotations": {"a/b": "1"}}
    return {"metadata": metadata, "spec": {"containers": [container], "volumes": volumes or []}}


@pytest.mark.parametrize(
    "text, swapped",
    [
        ("/checkpoints", "/here/c"),
        ("/checkpoints/step-1", "/here/c/step-1"),
        ("--dir=/checkpoints/x", "--dir=/here/c/x"),
        ("/checkpoints:/tmp", "/here/c:/here/t"),
        ("/checkpoints-of-mine", "/checkpoints-of-mine"),
        ("/data/checkpoints", "/data/checkpoints"),
        ("http://host/checkpoints", "http://host/checkpoints"),
        ("", ""),
    ],
)
def test_mount_paths_are_replaced_where_a_path_begins_with_them(text: str, swapped: str) -> None:
    assert swap_paths(text, {"/checkpoints": Path("/here/c"), "/tmp": Path("/here/t")}) == swapped


def test_of_nested_mounts_the_inner_one_wins() -> None:
    swaps = {"/data": Path("/outer"), "/data/inner": Path("/i")}
    assert swap_paths("/data/inner/x /data/y", swaps) == "/i/x /outer/y"


def test_variables_are_expanded_as_by_a_kubelet(tmp_path: Path) -> None:
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WHERE", "value": "$(IP):80 $(UNKNOWN) $$(IP)"},
    ]
    container = {**CONTAINER, "env": env, "args": ["--name=$(NAME)"]}
    read = read_pod(pod_of(container), Place(tmp_path, {})).containers[0]
    assert dict(read.environment)["WHERE"] == "127.0.0.1:80 $(UNKNOWN) $(IP)"
    assert read.command == (sys.executable, "-m", "x", "--name=p")


@pytest.mark.parametrize(
    "manifest, said",
    [
        (pod_of({**CONTAINER, "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {}}}]}), "spec.workers.env (KEY)"),
        (pod_of({**CONTAINER, "envFrom": [{"secretRef": {"name": "s"}}]}), "spec.workers.envFrom"),
        (pod_of({"name": "c"}), "no command"),
        (
            pod_of(
                {**CONTAINER, "volumeMounts": [{"name": "v", "mountPath": "/no/such/folder"}]},
                [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}],
            ),
            "/no/such/folder",
        ),
    ],
)
def test_what_only_a_cluster_has_is_refused_by_name(manifest: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_pod(manifest, Place(tmp_path, {}))


def test_a_volume_of_a_cluster_is_the_folder_of_the_same_path_where_there_is_one(tmp_path: Path) -> None:
    container = {**CONTAINER, "volumeMounts": [{"name": "v", "mountPath": str(tmp_path)}]}
    pod = read_pod(pod_of(container, [{"name": "v", "nfs": {}}]), Place(tmp_path / "pods", {}))
    assert pod.volumes[0][1] == tmp_path


def test_checkpoints_and_output_lie_in_the_run_folder_and_data_in_the_cache(tmp_path: Path) -> None:
    job = assembled(tmp_path)
    config = RunConfig.from_json(job.config_maps["tiny-config"]["run.json"])
    assert (config.checkpoint.path, config.output) == (str(tmp_path / "run/checkpoints"), str(tmp_path / "run"))
    assert config.data.prepared == str(tmp_path / "cache")
    assert config.job_uid == job.uid
    assert {folder for pod in job.pods for volume, folder in pod.volumes if volume.name == "shared"} == {
        tmp_path / "run/checkpoints"
    }


def test_paths_in_the_folder_of_the_checkpoints_follow_it(tmp_path: Path) -> None:
    job = assembled(tmp_path, "data.prepared=/checkpoints/data", "checkpoint.resume=/checkpoints/step-00000005")
    config = RunConfig.from_json(job.config_maps["tiny-config"]["run.json"])
    assert config.data.prepared == str(tmp_path / "run/checkpoints/data")
    assert config.checkpoint.resume == str(tmp_path / "run/checkpoints/step-00000005")


def test_a_config_map_of_the_user_is_not_here(tmp_path: Path) -> None:
    volume = "{name: mine, mountPath: /mine, configMap: {name: mine}}"
    shared = "{name: shared, mountPath: /checkpoints, persistentVolumeClaim: {claimName: shared}}"
    with pytest.raises(UserError, match="the ConfigMap mine"):
        assembled(tmp_path, f"workers.volumes=[{shared}, {volume}]")


@pytest.mark.parametrize(
    "visible, chosen",
    [
        (None, ("0", "1", "2")),
        ("", ()),
        ("-1", ()),
        ("2,0", ("2", "0")),
        ("1,7,0", ("1",)),
        ("0,0", ("0",)),
        ("GPU-bbbb, 0", ("GPU-bbbb", "0")),
        ("MIG-1", ()),
    ],
)
def test_gpus_are_chosen_as_cuda_would(visible: str | None, chosen: tuple[str, ...]) -> None:
    assert select_gpus(UUIDS, visible) == chosen


def test_the_listing_of_nvidia_smi() -> None:
    text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa1111)\n  MIG 1g (UUID: MIG-x)\nGPU 1: X (UUID: GPU-bbbb2222)\n"
    assert parse_listing(text) == UUIDS[:2]


def test_nodes_share_what_the_machine_has() -> None:
    assert find_machines(2, UUIDS).gpus_per_node == 1
    assert find_machines(1000, ()).cpus_per_node == 1


@pytest.mark.parametrize(
    "environment, folder",
    [({"XDG_CACHE_HOME": "/c"}, Path("/c")), ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache")],
)
def test_the_cache_is_where_the_user_keeps_caches(environment: dict[str, str], folder: Path) -> None:
    assert cache_folder(environment) == folder / "ring-training-operator" / "data"


def used_folder(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.open()
    folder.write_request(tiny_job(5), {"plan": 1})
    (folder / "metrics.jsonl").write_text(metrics_line(7, 1) + metrics_line(8, 1)[:30])
    (folder / "checkpoints" / "step-00000006.1").mkdir()
    (folder / "checkpoints" / "step-00000006.1" / "COMPLETE").touch()
    (folder / "checkpoints" / ".draft-step-00000007").mkdir()
    (folder / "checkpoints" / "step-best").mkdir()
    (folder / "checkpoints" / "step-best" / "COMPLETE").touch()
    folder.close()
    return folder


def metrics_line(step: int, epoch: int) -> str:
    return MetricsLine(step, 100, 1.0, 0.1, 1.0, 1, 1.0, 1.0, epoch, ()).to_json() + "\n"


def test_a_folder_with_a_run_is_refused_with_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step 7, checkpoint of step 6\).*\n.*--resume.*--overwrite"):
        used_folder(tmp_path / "run").refuse_use()


def test_only_a_run_is_ever_deleted(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "run")
    (folder / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex"):
        folder.clear()
    assert folder.last_checkpoint() == 6
    (folder / "thesis.tex").unlink()
    folder.clear()
    assert folder.entries() == set()
    folder.refuse_use()


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name not in (".lock", "failed-start"))


def test_a_run_that_made_room_comes_back_unless_the_new_one_begins(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "run")
    before = visible(folder.path)
    for begins in (False, True):
        folder.open()
        folder.set_aside()
        assert folder.entries() == set()
        folder.write_request(tiny_job(9), {"plan": 2})
        if begins:
            (folder / "ranks.json").touch()
        folder.close()
        folder.open()
        assert (visible(folder.path) == before) != begins
        folder.close()
    assert folder.last_checkpoint() is None
    assert {path.name for path in folder.path.iterdir() if path.name.startswith(".")} <= {".lock"}


def test_a_kill_while_a_run_makes_room_loses_nothing(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "run")
    before = folder.entries()
    (folder / ".before.moving").mkdir()
    (folder / "metrics.jsonl").rename(folder / ".before.moving" / "metrics.jsonl")
    folder.open()
    assert folder.entries() == before
    folder.close()


def test_a_start_that_failed_before_its_first_epoch_leaves_the_folder_free(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open()
    folder.write_request(tiny_job(5), {"plan": 1})
    folder.check_resume(load_manifest(MANIFEST, overrides=["context.length=8192"])[0])
    folder.refuse_use()
    assert folder.entries() == set()
    folder.close()


def test_a_manifest_alone_is_a_persons_own_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    folder = RunFolder(tmp_path)
    for use in (folder.set_aside, folder.clear, folder.refuse_use):
        with pytest.raises(UserError, match=r"manifest\.yaml"):
            use()
    assert (tmp_path / "manifest.yaml").read_text() == MANIFEST


def test_names_of_a_run_alone_do_not_make_a_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    folder = RunFolder(tmp_path)
    for use in (folder.clear, folder.refuse_use):
        with pytest.raises(UserError, match="logs"):
            use()
    assert (tmp_path / "logs").is_dir()


def test_a_folder_serves_one_ringctl_at_a_time(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open()
    with pytest.raises(UserError, match="in use by another ringctl"):
        second.open()
    first.close()
    second.open()
    second.close()


@pytest.mark.parametrize(
    "change, refused",
    [
        ("training.steps=9", []),
        ("recovery.budget.application=9", []),
        ("checkpoint.everySteps=3", []),
        ("training.optimizer.lr=0.5", ["spec.training.optimizer.lr"]),
        ("context.length=8192", ["spec.context.length"]),
        ("data.packing=concatenate", ["spec.data.packing"]),
        ("model.architecture.layers=2", ["spec.model.architecture.layers"]),
    ],
)
def test_a_run_goes_on_only_as_what_it_was(change: str, refused: list[str]) -> None:
    now = load_manifest(MANIFEST, overrides=[change])[0]
    faults = changed_fields(manifest_of(load_manifest(MANIFEST)[0]), manifest_of(now))
    assert [fault.path for fault in faults] == refused


def test_going_on_needs_a_run_and_a_checkpoint_policy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        RunFolder(tmp_path).check_resume(tiny_job(5))
    folder = used_folder(tmp_path / "run")
    folder.check_resume(tiny_job(6))
    with pytest.raises(UserError, match=r"spec\.checkpoint\.resume"):
        folder.check_resume(load_manifest(MANIFEST, overrides=["checkpoint.resume=none"])[0])


def test_the_newest_checkpoint_is_the_one_written_last(tmp_path: Path) -> None:
    for name, marker in (("step-00000009", '{"serial": 1}'), ("step-00000006.1", '{"serial": 2}'), ("step-7", "torn")):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "COMPLETE").write_text(marker)
    assert RunFolder(tmp_path).last_checkpoint() == 6


def test_a_run_does_not_go_on_to_a_step_behind_it(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "run")
    folder.check_resume(tiny_job(6))
    with pytest.raises(UserError, match=r"spec\.training\.steps: 5, but the run in this folder is at step 6"):
        folder.check_resume(tiny_job(5))
    older = f"checkpoint.resume={tmp_path}/run/checkpoints/step-00000002"
    folder.check_resume(tiny_job(5, older))


@pytest.mark.parametrize(
    "change, read, path",
    [
        ("data.source={path: text}", lambda d: d.source.path, "/at/text"),
        ("data.source={path: 'text/**/*.md'}", lambda d: d.source.path, "/at/text/**/*.md"),
        ("data.source={path: /text}", lambda d: d.source.path, "/text"),
        ("data.source={jsonl: {path: a.jsonl}}", lambda d: d.source.jsonl.path, "/at/a.jsonl"),
        ("data.source={path: '~/text'}", lambda d: d.source.path, str(Path.home() / "text")),
        ("data.tokenizer=t.json", lambda d: d.tokenizer, "/at/t.json"),
        ("data.tokenizer=bytes", lambda d: d.tokenizer, "bytes"),
    ],
)
def test_local_paths_are_of_the_folder_that_ringctl_runs_in(change: str, read: Any, path: str) -> None:
    job = with_absolute_paths(load_manifest(MANIFEST, overrides=[change])[0], Path("/at"))
    assert read(job.spec.data) == path


def test_the_same_relative_path_in_another_folder_is_another_text(tmp_path: Path) -> None:
    job = tiny_job(9, "data.source={path: text}")
    folder = used_folder(tmp_path / "run")
    folder.write_request(with_absolute_paths(job, Path("/a")), {})
    folder.check_resume(with_absolute_paths(job, Path("/a")))
    with pytest.raises(UserError, match=r'spec\.data\.source\.path: "/b/text".*"/a/text"'):
        folder.check_resume(with_absolute_paths(job, Path("/b")))


@given(cuts=st.lists(st.integers(0, 12), max_size=6), torn=st.booleans())
def test_every_line_is_told_once_however_often_the_run_begins_again(cuts: list[int], torn: bool) -> None:
    """Each restart cuts the file back to a step and goes on in a new epoch, in a new file or in the same."""
    with tempfile.TemporaryDirectory() as folder:
        follow(Path(folder), cuts, torn)


def follow(folder: Path, cuts: list[int], torn: bool) -> None:
    path = folder / "metrics.jsonl"
    tail = MetricsTail(path, epoch=0)
    lines: list[str] = []
    told: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []
    for epoch, cut in enumerate([0, *cuts], start=1):
        lines = lines[:cut]
        for step in range(len(lines) + 1, len(lines) + 5):
            lines.append(metrics_line(step, epoch))
            expected.append((epoch, step))
        draft = folder / "draft"
        draft.write_text("".join(lines) + (lines[0][:20] if torn else ""))
        draft.replace(path)
        told += [(line.epoch, line.step) for line in tail.poll()]
    assert told == expected
