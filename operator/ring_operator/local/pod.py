"""A rendered pod -> what this machine runs for it: commands, environments, folders.

Pure. The manifest is read the way a kubelet reads it, as far as `render` uses it; the rest is refused by name rather
than left out in silence. Mounts become folders of this machine (`Mapping`), and their paths are replaced wherever
a command or a variable names them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ring_operator import names
from ring_operator.errors import Fault, UserError, refuse

_EXPANSION = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_LOCAL_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Volume:
    """`kind`: configMap | emptyDir | downwardAPI | here (a folder of this machine). `source`: name or folder."""

    name: str
    kind: str
    source: str = ""
    optional: bool = False
    items: tuple[tuple[str, str], ...] = ()  # downwardAPI: file, field path


@dataclass(frozen=True, slots=True)
class Container:
    """A command to run. `environment`: what the manifest sets, expanded."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pod:
    """`volumes`: each with the folder that stands for it. `gpus`: that its containers ask for."""

    name: str
    annotations: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    volumes: tuple[tuple[Volume, Path], ...]
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    gpus: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod's volumes are on this machine.

    `pods`: a folder for each pod's own volumes. `mounts`: mount paths that stand for given folders, whatever volume a
    cluster would mount there.
    """

    pods: Path
    mounts: Mapping[str, Path]


def read_pod(manifest: Mapping[str, Any], place: Place) -> Pod:
    """Raises UserError where a volume or a variable has no counterpart on this machine."""
    name = manifest["metadata"]["name"]
    spec = manifest["spec"]
    mounts = _mount_paths(spec)
    volumes = tuple(_volume(raw, mounts.get(raw["name"], ()), place, name) for raw in spec.get("volumes", ()))
    folders = {volume.name: folder for volume, folder in volumes}
    swaps = {path: folders[volume] for volume, paths in mounts.items() for path in paths}
    context = _Context(manifest, {**swaps, **place.mounts})
    return Pod(
        name=name,
        annotations=tuple(sorted(manifest["metadata"].get("annotations", {}).items())),
        labels=tuple(sorted(manifest["metadata"].get("labels", {}).items())),
        volumes=volumes,
        init_containers=tuple(context.container(raw) for raw in spec.get("initContainers", ())),
        containers=tuple(context.container(raw) for raw in spec["containers"]),
        gpus=max(_gpus(raw) for raw in spec["containers"]),
    )


def field_of(manifest_metadata: Mapping[str, Any], path: str) -> str:
    """The value of a downward-API field. Raises UserError for one that this machine cannot give."""
    if match := re.fullmatch(r"metadata\.(annotations|labels)\['([^']+)'\]", path):
        return str(manifest_metadata.get(match[1], {}).get(match[2], ""))
    if path in ("metadata.annotations", "metadata.labels"):
        return "".join(f'{k}="{v}"\n' for k, v in sorted(manifest_metadata.get(path.split(".")[1], {}).items()))
    if path == "metadata.name":
        return str(manifest_metadata["name"])
    if path == "metadata.uid":
        return str(manifest_metadata.get("uid", manifest_metadata["name"]))
    if path == "metadata.namespace":
        return str(manifest_metadata.get("namespace", "default"))
    if path in ("status.podIP", "status.hostIP"):
        return _LOCAL_ADDRESS
    if path == "spec.nodeName":
        return "localhost"
    raise refuse("", f"a pod asks for the field {path}, which `ringctl run` does not know")


def swap_paths(text: str, swaps: Mapping[str, Path]) -> str:
    """`text` with every mount path that starts a path in it replaced by its folder."""
    if not swaps:
        return text
    longest_first = "|".join(re.escape(path) for path in sorted(swaps, key=len, reverse=True))
    pattern = rf"(?<![^\s=:,;\"'])({longest_first})(?=$|[/\s:,;\"'])"
    return re.sub(pattern, lambda match: str(swaps[match[1]]), text)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a container's command and variables are read against."""

    manifest: Mapping[str, Any]
    swaps: Mapping[str, Path]

    def container(self, raw: Mapping[str, Any]) -> Container:
        environment: dict[str, str] = {}
        for variable in raw.get("env", ()):
            environment[variable["name"]] = swap_paths(self._value(variable, environment), self.swaps)
        if raw.get("envFrom"):
            raise _no_secret("spec.workers.envFrom")
        words = [*raw.get("command", ()), *raw.get("args", ())]
        if not words:
            raise refuse("", f"container {raw['name']} has no command, and `ringctl run` has no image to take it from")
        command = [swap_paths(_expand(word, environment), self.swaps) for word in words]
        if command[0] in ("python", "python3"):
            command[0] = sys.executable
        return Container(raw["name"], tuple(command), tuple(environment.items()))

    def _value(self, variable: Mapping[str, Any], so_far: Mapping[str, str]) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return _expand(variable.get("value", ""), so_far)
        if "fieldRef" in source:
            return field_of(self.manifest["metadata"], source["fieldRef"]["fieldPath"])
        raise _no_secret(f"spec.workers.env ({variable['name']})")


def _no_secret(path: str) -> Exception:
    return refuse(
        path,
        "takes its value from a Secret or ConfigMap, and there is none on this machine",
        "Set the variable in your shell, which the ranks inherit, and leave the field out here.",
    )


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) as Kubernetes expands it: unknown names stay as they are, $$ is a dollar sign."""

    def put(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _EXPANSION.sub(put, text)


def _mount_paths(spec: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Volume name -> the paths at which containers mount it."""
    paths: dict[str, tuple[str, ...]] = {}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for mount in container.get("volumeMounts", ()):
            known = paths.setdefault(mount["name"], ())
            if mount["mountPath"] not in known:
                paths[mount["name"]] = (*known, mount["mountPath"])
    return paths


def _volume(raw: Mapping[str, Any], paths: Iterable[str], place: Place, pod: str) -> tuple[Volume, Path]:
    name = raw["name"]
    own = place.pods / pod / name
    for path in paths:
        if path in place.mounts:
            return Volume(name, "here", path), place.mounts[path]
    if "configMap" in raw:
        return Volume(name, "configMap", raw["configMap"]["name"], raw["configMap"].get("optional", False)), own
    if "emptyDir" in raw:
        return Volume(name, "emptyDir"), own
    if "downwardAPI" in raw:
        items = tuple((item["path"], item["fieldRef"]["fieldPath"]) for item in raw["downwardAPI"].get("items", ()))
        return Volume(name, "downwardAPI", items=items), own
    for path in paths:
        if Path(path).is_dir():
            return Volume(name, "here", path), Path(path)
    where = " and ".join(paths)
    raise UserError(
        [no_volume(name, f"storage of a cluster mounted at {where}, and this machine has no folder {where}")]
    )


def no_volume(name: str, what: str) -> Fault:
    remedy = "Make that folder, or leave the volume out here and name a folder of this machine where the job uses it."
    return Fault("spec.workers.volumes", f"volume {name} is {what}", remedy)


def _gpus(container: Mapping[str, Any]) -> int:
    return int(container.get("resources", {}).get("limits", {}).get(names.GPU_RESOURCE, 0))
