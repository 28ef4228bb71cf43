"""containerd's store with the project's images in it, filled once and given to every node by hard links.

In: `Images`. Out: a folder for each node, in the time it takes to link 50,000 files. Importing 5 GB takes minutes and
as much disk again, so it happens once for each set of dependencies; nodes then share those files, which nothing ever
writes to (containers write into layers of their own). What the filled store lacks, such as the last build of the
project's code, each node imports for itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from clusterkit import buildah
from clusterkit.images import Images
from clusterkit.locks import one_at_a_time
from clusterkit.node_config import NodePlan
from clusterkit.progress import Say, say_on_stderr
from clusterkit.real_node import Programs, RealNode

FILL_AGAIN_BYTES = 50_000_000  # more than this on top of the filled store is not worth importing for each node
FILLING = "store-"
_BLOBS = "io.containerd.content.v1.content/blobs"
_DATABASES = ("*.db", "*.db.lock")


def filled_store(images: Images, programs: Programs, say: Say = say_on_stderr) -> Path:
    """Raises NodeError, ComponentError."""
    store = buildah.image_cache() / "store"
    with one_at_a_time(buildah.image_cache() / ".store.lock", say):
        if missing_bytes(images, known_blobs(store)) > FILL_AGAIN_BYTES:
            say(f"importing the images into containerd, once for these dependencies: {store}")
            for stale in (store, *store.parent.glob(f"{FILLING}*")):  # the latter: where filling was killed
                shutil.rmtree(stale, ignore_errors=True)
            _fill(store, images, programs)
    return store


def known_blobs(store: Path) -> set[str]:
    listed = store.with_suffix(".json")
    return set(json.loads(listed.read_text())) if listed.exists() and store.exists() else set()


def missing_bytes(images: Images, known: set[str]) -> int:
    return sum(size for digest, size in images.all_blobs().items() if digest not in known)


def _fill(store: Path, images: Images, programs: Programs) -> None:
    store.with_suffix(".json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=FILLING, dir=store.parent) as name:
        folder = Path(name)
        node = RealNode(NodePlan(0, "image-store", folder, "unused"), folder, programs)
        try:
            node.start()
            node.import_images(images, set())
        finally:
            node.kill()
        (folder / "containerd").rename(store)
    _share_blobs(store, images)
    store.with_suffix(".json").write_text(json.dumps(sorted(images.all_blobs())))


def _share_blobs(store: Path, images: Images) -> None:
    """The layout's copy becomes a link to containerd's: the next build still finds it, at no cost."""
    for digest in images.all_blobs():
        kept = store / _BLOBS / digest.replace(":", "/", 1)
        new = images.blob(digest).with_suffix(".new")
        os.link(kept, new)
        new.replace(images.blob(digest))


def give(store: Path, folder: Path) -> None:
    """A copy of `store` at `folder`, of links, but for the databases, which each containerd writes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--link", str(store), str(folder)], check=True)
    for pattern in _DATABASES:
        for path in folder.glob(f"*/{pattern}"):
            own = path.with_suffix(".own")
            shutil.copy2(path, own)
            own.replace(path)
