"""What the metadata of a job's objects have in common, and the hash by which a change of them is told."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ring_operator import names
from ring_operator.render.config import Place
from ring_operator.spec import TrainingJob

Manifest = dict[str, Any]

_HASH_DIGITS = 16


def metadata(job: TrainingJob, place: Place, name: str, labels: dict[str, str]) -> Manifest:
    """Owned by the job: what belongs to it goes with it."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job.name,
        "uid": place.job_uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    namespace = {"namespace": job.metadata.namespace} if job.metadata.namespace else {}
    return {"name": name, **namespace, "labels": labels, "ownerReferences": [owner]}


def with_hash(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself as an annotation."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    value = hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
    about = manifest["metadata"]
    annotations = {**about.get("annotations", {}), names.ANNOTATION_HASH: value}
    return {**manifest, "metadata": {**about, "annotations": annotations}}
