"""buildah and skopeo, with a storage of their own in the cache: a user's images and these do not meet."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusterkit.binaries import cache_folder
from clusterkit.contained import contained
from clusterkit.progress import CommandError, Say, run_shown, say_on_stderr
from ring_worker.tether import tethered


def image_cache() -> Path:
    return cache_folder() / "images"


def command(*arguments: str) -> list[str]:
    storage = ["--root", str(image_cache() / "storage"), "--runroot", str(image_cache() / "run")]
    return contained(["buildah", *storage, "--storage-driver", "overlay", *arguments])


def ask(*arguments: str) -> str:
    """What a short command prints. Raises CommandError."""
    said = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)
    if said.returncode:
        raise CommandError(f"buildah {' '.join(arguments)} ended with exit code {said.returncode}:\n{said.stderr}")
    return said.stdout.strip()


def run(arguments: Sequence[str], folder: Path, what: str, say: Say = say_on_stderr) -> None:
    """A long command, its output in a log. Raises CommandError."""
    image_cache().mkdir(parents=True, exist_ok=True)
    run_shown(tethered(command(*arguments)), folder, image_cache() / "log", what, say=say)


def export(tag: str, layout: Path, say: Say = say_on_stderr) -> None:
    """Into an OCI layout, with layers as they are: `buildah push` would compress them, whatever it is told.

    A layer that is there already is not written again. Raises CommandError.
    """
    source = f"containers-storage:[overlay@{image_cache() / 'storage'}+{image_cache() / 'run'}]{tag}"
    skopeo = ["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", source, f"oci:{layout}:{tag}"]
    run_shown(tethered(contained(skopeo)), image_cache(), image_cache() / "log", f"{tag}: writing", say=say)


def image_id(tag: str) -> str | None:
    try:
        return ask("inspect", "--type", "image", "--format", "{{.FromImageID}}", tag)
    except CommandError:
        return None
