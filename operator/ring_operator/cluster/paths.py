"""Where objects are on the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ring_operator import names

_KINDS = {
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "Event": ("/api/v1", "events"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    names.KIND: (f"/apis/{names.API_VERSION}", names.PLURAL),
}
NODES = "/api/v1/nodes"


def collection(kind: str, namespace: str | None = None) -> str:
    """Of all namespaces where none is given."""
    prefix, plural = _KINDS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def one(kind: str, namespace: str, name: str) -> str:
    return f"{collection(kind, namespace)}/{name}"


def of(manifest: Mapping[str, Any], namespace: str) -> str:
    return one(manifest["kind"], namespace, manifest["metadata"]["name"])
