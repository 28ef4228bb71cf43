"""The whole CustomResourceDefinition: schema of spec and status, rules, and what `kubectl get` prints.

The API server checks a manifest by it as `ringctl validate` does, with the same rules and nearly the same words; the
operator checks again, since a few things have no expression here (docs/decisions/006).
"""

from __future__ import annotations

from typing import Any

import yaml

from ring_operator import names
from ring_operator.crd.cel import Rule, quoted
from ring_operator.crd.changes import CHANGE_RULES
from ring_operator.crd.rules import RULES
from ring_operator.crd.storage import STORAGE_RULES
from ring_operator.crd.structural import LIST_TYPE, VALIDATIONS, Schema, structural
from ring_operator.spec.job import JobSpec, Metadata, TrainingJob
from ring_operator.status.document import JobStatus

SHORT = "rtj"

# Lists whose entries are told apart by a field, so that several managers may apply entries of their own.
_KEYS = {
    "spec.workers.env": "name",
    "spec.workers.volumes": "name",
    "status.conditions": "type",
    "status.rings": "index",
    "status.attempts": "index",
    "status.nodeFailures": "node",
    "status.excludedNodes": "node",
}


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition, as plain values."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}", "labels": {names.LABEL_NAME: names.MANAGER}},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": [SHORT],
                "categories": ["all", "ring"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def as_yaml() -> str:
    """The file `manifests/crd/ringtrainingjobs.yaml`."""
    head = "# Made by `ringctl crd` from the models of ring_operator.spec and ring_operator.status. Not to be edited.\n"
    return head + yaml.safe_dump(definition(), sort_keys=False, width=120, allow_unicode=True)


def _schema() -> Schema:
    root: Schema = {
        "description": " ".join((TrainingJob.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of the API."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": structural(JobSpec, defaults=True),
            "status": structural(JobStatus, defaults=False),
        },
    }
    for path, key in _KEYS.items():
        field_at(root, path).update({LIST_TYPE: "map", "x-kubernetes-list-map-keys": [key]})
    for rule in (*_name_rules(), *RULES, *STORAGE_RULES, *CHANGE_RULES):
        field_at(root, rule.at).setdefault(VALIDATIONS, []).append(rule.as_validation())
    return root


def field_at(schema: Schema, path: str) -> Schema:
    """The schema of a field: `spec.workers.env[].name`. Empty: of the object itself."""
    for part in path.split(".") if path else ():
        name = part.removesuffix("[]")
        schema = schema["properties"][name]
        schema = schema["items"] if part != name else schema
    return schema


def _name_rules() -> tuple[Rule, ...]:
    pattern = next(m.pattern for m in Metadata.model_fields["name"].metadata if getattr(m, "pattern", None))
    return (
        Rule(
            holds=f"self.metadata.name.size() <= {names.JOB_NAME_MAX}",
            message=f"metadata.name has more than the {names.JOB_NAME_MAX} characters allowed: it begins the names of "
            "pods, which are host names of 63 characters at most",
        ),
        Rule(
            holds=f"self.metadata.name.matches({quoted(pattern)})",
            message="metadata.name is to begin with a small letter, as the names of Services do, and to hold small "
            "letters, digits and hyphens alone",
        ),
    )


def _columns() -> list[dict[str, Any]]:
    """What `kubectl get rtj` prints; columns of priority 1 with `-o wide`."""
    return [
        _column("State", "string", ".status.state"),
        _column("Rings", "string", ".status.ringsReady", "Rings of which every rank runs, and all rings."),
        _column("CP", "integer", ".status.plan.context", "Context parallel degree: ranks that share a sequence."),
        _column("Step", "integer", ".status.progress.step", "Last finished step."),
        _column("Tokens/s", "number", ".status.progress.tokensPerSecond"),
        _column("Efficiency", "number", ".status.progress.efficiency", "Of the rings, against the isolated kernel."),
        _column("Restarts", "integer", ".status.restarts.total"),
        _column("Age", "date", ".metadata.creationTimestamp"),
        _column("Loss", "number", ".status.progress.loss", "Mean nats a token of the last logged step.", wide=True),
        _column("Epoch", "integer", ".status.epoch", "Starts of all ranks so far.", wide=True),
        _column("Reason", "string", '.status.conditions[?(@.type=="Running")].reason', wide=True),
    ]


def _column(name: str, kind: str, path: str, description: str = "", wide: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "jsonPath": path,
        **({"description": description} if description else {}),
        **({"priority": 1} if wide else {}),
    }
