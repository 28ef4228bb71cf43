"""An OCI layout as one stream for `ctr images import`, without the blobs that the receiver has already.

In: images and the digests that are known there. Out: a tar, written into a pipe; a layer of 5 GB is neither copied nor
sent a second time.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Sequence
from typing import IO

from clusterkit.images import Image, Images


def write_archive(images: Images, known: Collection[str], pipe: IO[bytes]) -> None:
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add_text(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
        _add_text(archive, "index.json", json.dumps(index(images.images)))
        for digest in sorted({digest for image in images.images for digest in image.blobs} - set(known)):
            archive.add(images.blob(digest), arcname=f"blobs/{digest.replace(':', '/', 1)}")


def index(images: Sequence[Image]) -> dict[str, object]:
    manifests = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest,
            "size": image.blobs[image.manifest],
            # The name by which containerd knows it, and so the kubelet.
            "annotations": {"io.containerd.image.name": image.tag, "org.opencontainers.image.ref.name": image.tag},
        }
        for image in images
    ]
    return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(text.encode())
    archive.addfile(info, io.BytesIO(text.encode()))
