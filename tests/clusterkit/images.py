"""The project's own images, built by its own Dockerfiles, as an OCI layout from which nodes import.

In: the working tree. Out: `Images`: tags, and a folder with their blobs. What an image installs is built once for each
set of dependencies (the worker's: minutes, 5 GB); the project's code is a last layer, so that a change of code is there
in seconds. Layers are never compressed: they travel over one disk, and compressing 5 GB takes longer than all the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterkit import buildah
from clusterkit.base_image import base_image, named_base
from clusterkit.build_secrets import build_secrets
from clusterkit.host import debian_mirror
from clusterkit.locks import one_at_a_time
from clusterkit.progress import CommandError, Say, say_on_stderr

ROOT = Path(__file__).parents[2]
OPERATOR = "localhost/ring-training-operator:dev"
WORKER = "localhost/ring-training-worker:dev"
PAUSE = "localhost/ring-training-pause:1"
PRUNE_BYTES = 50_000_000
KEEP_SECONDS = 3600.0
_DOCKERFILES = {OPERATOR: "operator/Dockerfile", WORKER: "worker/Dockerfile"}

# Holds a pod's namespaces: reaps what is orphaned there, ends when told to.
_PAUSE_C = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
_PAUSE_DOCKERFILE = 'FROM scratch\nCOPY pause /pause\nUSER 65532:65532\nENTRYPOINT ["/pause"]\n'


@dataclass(frozen=True, slots=True)
class Image:
    """`manifest`: its digest; `blobs`: digests of all it consists of, with their sizes, the manifest among them."""

    tag: str
    manifest: str
    blobs: dict[str, int]


@dataclass(frozen=True, slots=True)
class Images:
    layout: Path
    images: tuple[Image, ...]

    def all_blobs(self) -> dict[str, int]:
        return {digest: size for image in self.images for digest, size in image.blobs.items()}

    def blob(self, digest: str) -> Path:
        return self.layout / "blobs" / digest.replace(":", "/", 1)


def build_images(say: Say = say_on_stderr) -> Images:
    """Those of the operator, the worker and the pause program. Raises HostError, CommandError."""
    layout = buildah.image_cache() / "layout"
    with one_at_a_time(buildah.image_cache() / ".lock", say):
        buildah.ask("rm", "--all")  # what killed builds left
        tags = [*_build_project(say), _build_pause(say)]
        for tag in tags:
            buildah.export(tag, layout, say)
        images = Images(layout, tuple(_read(layout, tag) for tag in tags))
        _forget_others(images, say)
    return images


def _build_project(say: Say) -> Iterator[str]:
    base = base_image(say)
    mirror = None if named_base() else debian_mirror()
    for tag, dockerfile in _DOCKERFILES.items():
        with build_secrets(mirror) as secrets:
            arguments = ["--isolation=chroot", "--layers", "--format=oci", f"--build-arg=BASE={base}", *secrets]
            buildah.run(["build", *arguments, f"--file={dockerfile}", f"--tag={tag}", str(ROOT)], ROOT, tag, say)
        yield tag


def _build_pause(say: Say) -> str:
    if buildah.image_id(PAUSE) is None:
        with tempfile.TemporaryDirectory(prefix="ring-pause-") as name:
            folder = Path(name)
            (folder / "pause.c").write_text(_PAUSE_C)
            (folder / "Dockerfile").write_text(_PAUSE_DOCKERFILE)
            _compile(folder)
            buildah.run(["build", "--isolation=chroot", "--format=oci", f"--tag={PAUSE}", name], folder, PAUSE, say)
    return PAUSE


def _compile(folder: Path) -> None:
    command = ["gcc", "-O2", "-static", "-o", str(folder / "pause"), str(folder / "pause.c")]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise CommandError(f"{' '.join(command)} failed:\n{said.stderr}")


def _read(layout: Path, tag: str) -> Image:
    index = json.loads((layout / "index.json").read_text())
    [entry] = [entry for entry in index["manifests"] if _tag_of(entry) == tag]
    digest = entry["digest"]
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/", 1)).read_text())
    parts = [entry, manifest["config"], *manifest["layers"]]
    return Image(tag, digest, {part["digest"]: part["size"] for part in parts})


def _tag_of(entry: dict[str, Any]) -> str | None:
    name: str | None = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
    return name


def _forget_others(images: Images, say: Say) -> None:
    """Drop what earlier builds left in the layout; and in buildah's storage, where what they installed changed."""
    wanted = images.all_blobs()
    for digest in wanted:
        os.utime(images.blob(digest))
    index = images.layout / "index.json"
    document = json.loads(index.read_text())
    document["manifests"] = [entry for entry in document["manifests"] if entry["digest"] in wanted]
    index.write_text(json.dumps(document))
    others = [path for path in (images.layout / "blobs" / "sha256").iterdir() if f"sha256:{path.name}" not in wanted]
    # What was used just now may be another working tree's, whose nodes are about to import it.
    stale = [path for path in others if path.stat().st_mtime < time.time() - KEEP_SECONDS]
    freed = sum(path.stat().st_size for path in stale)
    for path in stale:
        path.unlink()
    if freed > PRUNE_BYTES:
        buildah.run(["rmi", "--prune"], ROOT, "images of earlier dependencies: removing", say)
