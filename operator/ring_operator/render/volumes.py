"""The volumes of a pod: the seam's documents, scratch space, what the user names, and room for what is written.

A folder that the job writes (checkpoints, prepared data) and that no volume of the user holds gets one that lives as
long as the pod; `spec.rules` refuses that where several pods would have to share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ring_operator import names
from ring_operator.spec import TrainingJob, Volume
from ring_operator.spec.rules import under, volume_over

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Mounted:
    name: str
    source: Manifest
    path: str
    read_only: bool = False


def volumes_of(job: TrainingJob) -> list[Manifest]:
    return [{"name": volume.name, **volume.source} for volume in _all(job)]


def mounts_of(job: TrainingJob) -> list[Manifest]:
    return [
        {"name": volume.name, "mountPath": volume.path, **({"readOnly": True} if volume.read_only else {})}
        for volume in _all(job)
    ]


def _all(job: TrainingJob) -> list[_Mounted]:
    return [*_seam(job), *_scratch(job), *map(_users, job.spec.workers.volumes), *_room(job)]


def _seam(job: TrainingJob) -> list[_Mounted]:
    config = {"configMap": {"name": names.config_map(job.name)}}
    ranks = {"configMap": {"name": names.ranks_map(job.name), "optional": True}}
    annotations = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
    return [
        _Mounted("ring-config", config, names.CONFIG_PATH, read_only=True),
        _Mounted("ring-ranks", ranks, names.RANKS_PATH, read_only=True),
        _Mounted("ring-pod-info", {"downwardAPI": {"items": [annotations]}}, names.POD_INFO_PATH, read_only=True),
    ]


def _scratch(job: TrainingJob) -> list[_Mounted]:
    shared = {"emptyDir": {"medium": "Memory", "sizeLimit": job.spec.workers.shared_memory}}
    return [_Mounted("ring-tmp", {"emptyDir": {}}, "/tmp"), _Mounted("ring-shm", shared, "/dev/shm")]


_KINDS = {"persistent_volume_claim", "empty_dir", "config_map", "secret", "projected"}


def _users(volume: Volume) -> _Mounted:
    source = volume.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, include=_KINDS)
    return _Mounted(volume.name, source, volume.mount_path, volume.read_only)


def _room(job: TrainingJob) -> list[_Mounted]:
    """Folders that are written and in no volume yet."""
    checkpoints, prepared = job.spec.checkpoint.path, job.spec.data.prepared
    room = []
    if volume_over(checkpoints, job.spec.workers.volumes) is None:
        room.append(_Mounted("ring-checkpoints", {"emptyDir": {}}, checkpoints))
    if prepared and not under(prepared, checkpoints) and volume_over(prepared, job.spec.workers.volumes) is None:
        room.append(_Mounted("ring-prepared", {"emptyDir": {}}, prepared))
    return room
