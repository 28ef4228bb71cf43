"""Job and run folder -> `LocalJob`: rendered as for a cluster, then read as pods of this machine.

Three folders have a place of their own here: checkpoints and output are in the run folder, so that a run is one folder
to look at, move or delete; prepared data are in the user's cache, so that the next run of the same text need not
prepare it again. Volumes of a cluster stand for the folder of the same path, where this machine has one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ring_operator import names
from ring_operator.errors import UserError
from ring_operator.local.folder import CHECKPOINTS, PODS, RunFolder
from ring_operator.local.pod import Place, no_volume, read_pod, swap_paths
from ring_operator.local.supervise import LocalJob
from ring_operator.plan import ParallelPlan
from ring_operator.render import Place as RenderPlace
from ring_operator.render import Rendered, render
from ring_operator.spec import TrainingJob
from ring_operator.spec.rules import under

_IMAGE = "this-machine"  # rendered, and never pulled


@dataclass(frozen=True, slots=True)
class Here:
    """What of this machine a job gets. `gpus`: as CUDA names them. `cache`: where prepared data are kept."""

    gpus: tuple[str, ...]
    cache: Path


def cache_folder(environment: Mapping[str, str]) -> Path:
    """By the XDG rules: XDG_CACHE_HOME where it is set and absolute."""
    base = environment.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return home / names.MANAGER / "data"


def with_absolute_paths(job: TrainingJob, here: Path) -> TrainingJob:
    """The job with its text and tokenizer named from the root, so that a run means the same from every folder."""

    def absolute(path: str | None) -> str | None:
        return str(here / os.path.expanduser(path)) if path else path

    data, source = job.spec.data, job.spec.data.source
    jsonl = source.jsonl and source.jsonl.model_copy(update={"path": absolute(source.jsonl.path)})
    tokenizer = data.tokenizer if data.tokenizer == "bytes" else absolute(data.tokenizer)
    source = source.model_copy(update={"path": absolute(source.path), "jsonl": jsonl})
    data = data.model_copy(update={"source": source, "tokenizer": tokenizer})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"data": data})})


def local_job(job: TrainingJob, plan: ParallelPlan, folder: RunFolder, here: Here) -> LocalJob:
    """Raises UserError for what this machine has no counterpart of."""
    checkpoints = folder / CHECKPOINTS
    job = _with_local_paths(job, checkpoints)
    prepared = job.spec.data.prepared or str(here.cache)
    place = RenderPlace(str(uuid.uuid4()), str(folder.path), str(checkpoints), prepared, _IMAGE)
    rendered = render(job, plan, place)
    mounts = _mounts(job, checkpoints)
    pods = tuple(read_pod(pod, Place(folder / PODS, mounts)) for pod in rendered.pods)
    local = LocalJob(
        uid=place.job_uid,
        plan=plan,
        pods=pods,
        config_maps={rendered.config_map["metadata"]["name"]: rendered.config_map["data"]},
        recovery=job.spec.recovery,
        grace_seconds=float(job.spec.workers.termination_grace_period_seconds),
        prepared=Path(prepared),
        gpus=here.gpus,
    )
    _refuse_strange_config_maps(local, rendered)
    return local


def _with_local_paths(job: TrainingJob, checkpoints: Path) -> TrainingJob:
    """The job with paths in its folder of checkpoints turned into those of the run folder."""
    spec = job.spec
    swaps = {spec.checkpoint.path.rstrip("/"): checkpoints}
    resume = swap_paths(spec.checkpoint.resume, swaps)
    prepared = swap_paths(spec.data.prepared, swaps) if spec.data.prepared else None
    changes = {
        "checkpoint": spec.checkpoint.model_copy(update={"resume": resume}),
        "data": spec.data.model_copy(update={"prepared": prepared}),
    }
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


def _mounts(job: TrainingJob, checkpoints: Path) -> dict[str, Path]:
    """Where the volumes are that hold what is written, unless this machine has the folder itself."""
    path, prepared = job.spec.checkpoint.path, job.spec.data.prepared
    holding = [v.mount_path for v in job.spec.workers.volumes if under(path, v.mount_path)]
    mounts = {mount: checkpoints for mount in holding if not Path(mount).is_dir()}
    return {**mounts, path: checkpoints, **({prepared: Path(prepared)} if prepared else {})}


def _refuse_strange_config_maps(local: LocalJob, rendered: Rendered) -> None:
    """The job's own ConfigMap is here, others exist only on a cluster."""
    own = rendered.config_map["metadata"]["name"]
    strange = {
        volume.name: volume.source
        for pod in local.pods
        for volume, _ in pod.volumes
        if volume.kind == "configMap" and volume.source != own and not volume.optional
    }
    if strange:
        raise UserError([no_volume(name, f"the ConfigMap {source}") for name, source in strange.items()])
