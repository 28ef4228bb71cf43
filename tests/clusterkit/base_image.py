"""A base for the project's images, made of Debian's packages: for machines that reach no image registry.

In: the Debian mirror that this machine's apt uses. Out: the tag of an image with Python, its venv and headers, and
certificates, as the public Python images have them. It is made once and kept. `RING_BASE_IMAGE` names another one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from clusterkit import buildah
from clusterkit.contained import contained
from clusterkit.host import Mirror, debian_mirror
from clusterkit.progress import Say, run_shown, say_on_stderr
from ring_worker.tether import tethered

PACKAGES = ("python3", "python3-venv", "python3-dev", "ca-certificates")
# What names the mirror, changes with the day, or is of no use to a program.
_LEFT_OUT = (
    "etc/apt/sources.list",
    "etc/resolv.conf",
    "etc/hostname",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def named_base() -> str | None:
    return os.environ.get("RING_BASE_IMAGE") or None


def base_image(say: Say = say_on_stderr) -> str:
    """Raises HostError, CommandError."""
    if named := named_base():
        return named
    mirror = debian_mirror()
    tag = _tag(mirror.suite)
    if buildah.image_id(tag) is None:
        with tempfile.TemporaryDirectory(prefix="base-", dir=_folder()) as folder:
            _commit(_bootstrap(mirror, Path(folder), say), tag, say)
    return tag


def _tag(suite: str) -> str:
    recipe = repr((suite, PACKAGES, _LEFT_OUT))
    return f"localhost/ring-training-base:{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _folder() -> Path:
    buildah.image_cache().mkdir(parents=True, exist_ok=True)
    return buildah.image_cache()


def _bootstrap(mirror: Mirror, folder: Path, say: Say) -> Path:
    root = folder / "root"
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        mirror.suite,
        str(root),
        mirror.uri,
    ]
    run_shown(tethered(contained(command)), folder, _folder() / "log", f"base image of Debian {mirror.suite}", say=say)
    for path in (root / name for name in _LEFT_OUT):
        _empty(path)
    return root


def _empty(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.unlink(missing_ok=True)


def _commit(root: Path, tag: str, say: Say) -> None:
    container = buildah.ask("from", "scratch")
    try:
        buildah.run(["add", container, str(root), "/"], root, "base image: adding", say)
        buildah.run(["commit", container, tag], root, "base image: committing", say)
    finally:
        buildah.ask("rm", container)
