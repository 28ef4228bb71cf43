"""The rules of volumes and of what is written into them, in CEL: rows like those of `rules`."""

from __future__ import annotations

import re

from ring_operator import names
from ring_operator.crd.cel import Rule, quoted
from ring_operator.crd.rules import one_of


def _collisions() -> str:
    """A pattern of paths that are, lie in, or hold one of the paths which every pod has for itself."""
    inside = "|".join(re.escape(path) for path in names.RESERVED_PATHS)
    parents = {path[:end] for path in names.RESERVED_PATHS for end in range(len(path)) if path[end] == "/"}
    outside = "|".join(re.escape(parent) for parent in sorted(parents))
    return f"^(({inside})(/.*)?|({outside})/?)$"


def _free(at: str, field: str) -> tuple[Rule, ...]:
    """A folder in a pod that is written out and that nothing else has. The field may be left out."""
    path = f"self.{field}"
    return (
        Rule(
            at=at,
            holds=f"!has({path}) || !{path}.matches('//|/[.]{{1,2}}(/|$)')",
            message="has //, . or .. in it. Write the path out.",
            field=f".{field}",
        ),
        Rule(
            at=at,
            holds=f"!has({path}) || !{path}.matches({quoted(_collisions())})",
            message=f"collides with one of {', '.join(names.RESERVED_PATHS)}, which every pod has for itself. "
            "Take another path.",
            field=f".{field}",
        ),
    )


def _slashed(path: str) -> str:
    """The path with a slash at its end: what lies in a folder begins so."""
    return f"({path}.endsWith('/') ? {path} : {path} + '/')"


def _can_be_written(field: str) -> Rule:
    """Of the volumes over a path, the one mounted nearest to it holds it: it must be writable, and shared by many pods.

    A pod's root cannot be written, so where no volume is over the path it gets one of its own, which no other pod sees.
    """
    path, volumes = f"self.{field}", "self.workers.volumes"
    over = f"{_slashed(path)}.startsWith({{}})".format
    nearer = f"{volumes}.exists(n, {over(_slashed('n.mountPath'))} && n.mountPath.size() > v.mountPath.size())"
    claimed = "has(v.persistentVolumeClaim)"
    writable = f"!v.readOnly && ({claimed} || (has(v.emptyDir) && self.workers.nodes == 1))"
    some = f"has({volumes}) && {volumes}.exists(v, {over(_slashed('v.mountPath'))})"
    right = f"{volumes}.all(v, !{over(_slashed('v.mountPath'))} || {nearer} || ({writable}))"
    return Rule(
        at="spec",
        holds=f"!has({path}) || ({some} ? {right} : self.workers.nodes == 1)",
        message="is in no volume that can be written and that all pods share. "
        "Mount a persistentVolumeClaim over it in spec.workers.volumes.",
        field=f".{field}",
    )


STORAGE_RULES = (
    one_of("spec.workers.volumes[]", "persistentVolumeClaim", "emptyDir", "configMap", "secret", "projected"),
    one_of("spec.workers.volumes[].projected.sources[]", "secret", "configMap"),
    Rule(
        at="spec.workers.volumes[]",
        holds="!self.name.startsWith('ring-')",
        message="names with ring- are the operator's own. Take another name.",
        field=".name",
    ),
    Rule(
        at="spec.workers.volumes",
        holds=f"self.all(a, self.exists_one(b, {_slashed('a.mountPath')} == {_slashed('b.mountPath')}))",
        message="two volumes have the same mountPath. Take another one.",
    ),
    *_free("spec.workers.volumes[]", "mountPath"),
    *_free("spec.checkpoint", "path"),
    *_free("spec.data", "prepared"),
    _can_be_written("checkpoint.path"),
    _can_be_written("data.prepared"),
)
