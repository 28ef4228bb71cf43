"""Small manifests for tests: the shortest good one, and changes to it by path."""

from __future__ import annotations

from typing import Any

import yaml

from ring_operator.spec import Checked, TrainingJob, check_manifest, load_manifest

SHORTEST = """\
apiVersion: ringtraining.dev/v1alpha1
kind: RingTrainingJob
metadata: {name: tiny}
spec:
  model: {preset: tiny-1m}
  context: {length: 8192}
  workers: {gpusPerNode: 0}
  data: {source: {builtin: python-stdlib}}
  training: {steps: 10}
"""
STORAGE = {"name": "storage", "mountPath": "/checkpoints", "persistentVolumeClaim": {"claimName": "shared"}}


def sets(changes: dict[str, Any]) -> list[str]:
    """Changes by path, as `--set` takes them."""
    return [f"{path}={yaml.safe_dump(value, default_flow_style=True, width=10_000)}" for path, value in changes.items()]


def raw(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The shortest manifest with changes, as plain values, good or bad."""
    document: dict[str, Any] = yaml.safe_load(SHORTEST)
    for path, value in (changes or {}).items():
        *sections, name = path.split(".")
        target = document if sections[:1] == ["metadata"] else document["spec"]
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    return document


def check(changes: dict[str, Any]) -> Checked:
    return check_manifest(SHORTEST, "job.yaml", sets(changes))


def job(changes: dict[str, Any] | None = None) -> TrainingJob:
    """The shortest manifest with changes; it must be good."""
    return load_manifest(SHORTEST, "job.yaml", sets(changes or {}))[0]


def faults(changes: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Path, message and remedy of each fault."""
    return [(fault.path, fault.message, fault.remedy) for fault in check(changes).faults]
