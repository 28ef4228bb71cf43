"""Rules that bind several fields, as one table: each is a pure function of the sections whose names it takes.

A rule runs whenever its sections are well formed, whatever is wrong elsewhere, so that a person sees everything at
once. It yields faults with paths below `spec`. What depends on machines (ranks, divisibility) is for `plan`.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ring_operator import names
from ring_operator.errors import Fault
from ring_operator.spec.base import Section
from ring_operator.spec.model import Model
from ring_operator.spec.shape_rules import (
    Faults,
    alias,
    heads_fit,
    inner_rings_fit,
    is_changed,
    rope_reaches,
    spans_have_their_layers,
    stripe_has_its_layout,
    ulysses_fits,
    vocabulary_holds_the_bytes,
)
from ring_operator.spec.training import Checkpoint, Data, Evaluation, Training
from ring_operator.spec.workers import Volume, Workers


def check(sections: Mapping[str, Any]) -> Faults:
    """Faults of every rule whose sections are all there. `sections`: fields of JobSpec by their Python names."""
    for rule in RULES:
        wanted = _sections_of(rule)
        if all(name in sections for name in wanted):
            yield from rule(**{name: sections[name] for name in wanted})


@cache
def _sections_of(rule: Callable[..., Faults]) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def one_of(section: Section, path: str, fields: tuple[str, ...]) -> Faults:
    """Exactly one of the fields must be given."""
    given = [name for name in fields if getattr(section, name) is not None]
    if len(given) != 1:
        labels = [alias(section, name) for name in fields]
        said = " and ".join(alias(section, name) for name in given) or "none"
        yield Fault(
            path, f"{said} given, but it takes exactly one of {', '.join(labels)}", f"Give one of {', '.join(labels)}."
        )


def model_has_one_origin(model: Model) -> Faults:
    yield from one_of(model, "spec.model", ("preset", "architecture", "hf"))


def final_ratio_has_its_fall(training: Training) -> Faults:
    schedule = training.schedule
    if schedule.kind == "constant" and is_changed(schedule, "final_ratio"):
        message = f"{schedule.final_ratio:g} has no effect with kind constant, which never falls"
        yield Fault("spec.training.schedule.finalRatio", message, "Leave it out, or take kind cosine.")


def probe_has_its_steps(training: Training) -> Faults:
    probe = training.probe
    if not probe.every_steps and is_changed(probe, "rows"):
        message = f"{probe.rows} has no effect with everySteps 0: nothing is probed"
        yield Fault("spec.training.probe.rows", message, "Leave it out, or set everySteps, such as 100.")


def processes_only_on_cpu(workers: Workers) -> Faults:
    gpus, processes = workers.gpus_per_node, workers.processes_per_node
    if isinstance(gpus, int) and gpus > 0 and processes != "auto":
        yield Fault(
            "spec.workers.processesPerNode",
            f"{processes} processes beside gpusPerNode {gpus}: with GPUs there is one rank a GPU",
            "Leave processesPerNode out, or set gpusPerNode to 0.",
        )


def env_is_sound(workers: Workers) -> Faults:
    twice = {name for name, count in Counter(v.name for v in workers.env).items() if count > 1}
    for i, variable in enumerate(workers.env):
        path = f"spec.workers.env[{i}]"
        if variable.name in names.RESERVED_ENV or variable.name.startswith(names.RESERVED_ENV_PREFIX):
            yield Fault(f"{path}.name", f"{variable.name} is set by the operator itself", "Take another name.")
        if variable.name in twice:
            yield Fault(f"{path}.name", f"{variable.name} is given more than once", "Keep one of them.")
        yield from one_of(variable, path, ("value", "value_from"))
        if variable.value_from is not None:
            yield from one_of(variable.value_from, f"{path}.valueFrom", ("secret_key_ref", "config_map_key_ref"))


_VOLUME_KINDS = ("persistent_volume_claim", "empty_dir", "config_map", "secret", "projected")


def volumes_are_sound(workers: Workers) -> Faults:
    seen_names: dict[str, int] = {}
    seen_paths: dict[str, int] = {}
    for i, volume in enumerate(workers.volumes):
        path = f"spec.workers.volumes[{i}]"
        yield from one_of(volume, path, _VOLUME_KINDS)
        yield from _mount_path(volume, f"{path}.mountPath")
        yield from _only_once(volume.name, i, seen_names, f"{path}.name")
        yield from _only_once(volume.mount_path.rstrip("/"), i, seen_paths, f"{path}.mountPath")
        for j, part in enumerate(volume.projected.sources if volume.projected else ()):
            yield from one_of(part, f"{path}.projected.sources[{j}]", ("secret", "config_map"))


def _only_once(value: str, index: int, seen: dict[str, int], path: str) -> Faults:
    first = seen.setdefault(value, index)
    if first != index:
        yield Fault(path, f"{value} is that of volumes[{first}] already", "Take another one.")


def _mount_path(volume: Volume, path: str) -> Faults:
    if volume.name.startswith("ring-"):
        yield Fault(
            path.replace("mountPath", "name"),
            f"{volume.name}: names with ring- are the operator's own",
            "Take another name.",
        )
    yield from _free_path(volume.mount_path, path)


def under(path: str, folder: str) -> bool:
    """Whether an absolute path is a folder itself or lies in it."""
    return (path.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


def _free_path(value: str, path: str) -> Faults:
    """A folder in a pod that is written out and that nothing else has."""
    if "//" in value or any(part in (".", "..") for part in value.split("/")):
        yield Fault(path, f"{value} has //, . or .. in it", "Write the path out.")
    for reserved in names.RESERVED_PATHS:
        if under(value, reserved) or under(reserved, value):
            yield Fault(path, f"{value} collides with {reserved}, which every pod has for itself", "Take another path.")


def tolerations_are_sound(workers: Workers) -> Faults:
    for i, toleration in enumerate(workers.tolerations):
        path = f"spec.workers.tolerations[{i}]"
        if toleration.operator == "Exists" and toleration.value is not None:
            yield Fault(f"{path}.value", "a value has no meaning with operator Exists", "Leave it out, or use Equal.")
        if toleration.operator == "Equal" and toleration.key is None:
            yield Fault(f"{path}.key", "is missing; only operator Exists does without", "Give the key.")
        if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
            yield Fault(f"{path}.tolerationSeconds", "has a meaning only with effect NoExecute", "Leave it out.")


def gpus_and_devices_have_their_field(workers: Workers) -> Faults:
    taken = {names.GPU_RESOURCE: "gpusPerNode"}
    if workers.rdma is not None:
        taken[workers.rdma.resource] = "rdma.count"
    for part in ("requests", "limits"):
        for resource in taken.keys() & getattr(workers.resources, part).keys():
            yield Fault(
                f"spec.workers.resources.{part}[{resource}]",
                f"{resource} is set by workers.{taken[resource]}",
                f"Leave it out and set workers.{taken[resource]}.",
            )


def source_has_one_kind(data: Data) -> Faults:
    source, path = data.source, "spec.data.source"
    yield from one_of(source, path, ("path", "jsonl", "parquet", "tokens", "builtin"))
    if data.prepared is not None:
        yield from _free_path(data.prepared, "spec.data.prepared")
    if (source.include or source.exclude) and source.path is None and source.builtin is None:
        yield Fault(path, "include and exclude choose files of path or builtin", "Leave them out.")


def something_is_held_out(data: Data, evaluation: Evaluation) -> Faults:
    if evaluation.held_out and data.held_out.fraction == 0.0:
        yield Fault(
            "spec.evaluation.heldOut",
            "true, but data.heldOut.fraction is 0: there is nothing to measure on",
            "Set it to false, or hold out a fraction such as 0.02.",
        )


def sample_has_a_prompt_or_none(evaluation: Evaluation) -> Faults:
    if evaluation.sample_prompt and evaluation.sample_tokens == 0:
        yield Fault(
            "spec.evaluation.samplePrompt", "has no effect with sampleTokens 0", "Set sampleTokens, such as 200."
        )


def warmup_ends(training: Training) -> Faults:
    warmup = training.schedule.warmup_steps
    if warmup is not None and warmup > training.steps:
        yield Fault(
            "spec.training.schedule.warmupSteps",
            f"{warmup} is more than steps {training.steps}: the learning rate would never reach lr",
            f"Lower it to {training.steps // 10}.",
        )


def checkpoint_path_is_plain(checkpoint: Checkpoint) -> Faults:
    yield from _free_path(checkpoint.path, "spec.checkpoint.path")
    if checkpoint.resume not in ("latest", "none") and not checkpoint.resume.startswith("/"):
        yield Fault(
            "spec.checkpoint.resume",
            f"{checkpoint.resume!r} is neither latest nor none nor an absolute path",
            "Take latest, none, or a path such as /checkpoints/step-00000100.",
        )


def checkpoints_can_be_written(checkpoint: Checkpoint, workers: Workers) -> Faults:
    yield from _can_be_written("spec.checkpoint.path", checkpoint.path, workers)


def prepared_data_can_be_written(data: Data, checkpoint: Checkpoint, workers: Workers) -> Faults:
    """What lies with the checkpoints has their fault, once."""
    if data.prepared is None:
        return
    with_checkpoints = volume_over(data.prepared, workers.volumes) == volume_over(checkpoint.path, workers.volumes)
    if not (under(data.prepared, checkpoint.path) and with_checkpoints):
        yield from _can_be_written("spec.data.prepared", data.prepared, workers)


def _can_be_written(field: str, path: str, workers: Workers) -> Faults:
    """Pods have a read-only root; several of them must see the same folder."""
    volume = volume_over(path, workers.volumes)
    remedy = f"Mount a persistentVolumeClaim over {path} in spec.workers.volumes."
    if volume is not None and not _writable(volume):
        yield Fault(field, f"{path} is in volume {volume.name}, which cannot be written", remedy)
    elif workers.nodes > 1 and (volume is None or volume.persistent_volume_claim is None):
        where = "in no volume" if volume is None else f"in volume {volume.name}, which each pod has for itself"
        yield Fault(field, f"{path} is {where}, but {workers.nodes} pods must share it", remedy)


def _writable(volume: Volume) -> bool:
    """Files of ConfigMaps and Secrets are read-only, whatever the mount says."""
    return not volume.read_only and (volume.persistent_volume_claim is not None or volume.empty_dir is not None)


def volume_over(path: str, volumes: tuple[Volume, ...]) -> Volume | None:
    """The volume that holds a path: the one mounted nearest to it."""
    holding = [v for v in volumes if under(path, v.mount_path)]
    return max(holding, key=lambda v: len(v.mount_path), default=None)


RULES: tuple[Callable[..., Faults], ...] = (
    model_has_one_origin,
    heads_fit,
    rope_reaches,
    vocabulary_holds_the_bytes,
    spans_have_their_layers,
    stripe_has_its_layout,
    final_ratio_has_its_fall,
    probe_has_its_steps,
    ulysses_fits,
    inner_rings_fit,
    processes_only_on_cpu,
    env_is_sound,
    volumes_are_sound,
    tolerations_are_sound,
    gpus_and_devices_have_their_field,
    source_has_one_kind,
    something_is_held_out,
    sample_has_a_prompt_or_none,
    warmup_ends,
    checkpoint_path_is_plain,
    checkpoints_can_be_written,
    prepared_data_can_be_written,
)
