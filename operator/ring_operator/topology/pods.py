"""A pod as Kubernetes gives it -> what it takes, on which node.

Counted as the scheduler counts: containers run together, init containers one after the other beside the sidecars that
were started before them, and the pod takes the larger of both, its overhead besides. A pod that is pinned to a node but
not bound yet counts as if it were there. Never raises for what an object holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ring_operator import names
from ring_operator.raw import Raw, items, mapping, text
from ring_operator.topology.quantity import UNIT, Amounts, amounts

PODS = "pods"
_ENDED = ("Succeeded", "Failed")
_Sum = dict[str, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one pod takes of `node`. `job`: namespace/name of the training job that it belongs to, or empty."""

    node: str
    takes: Amounts
    job: str = ""


def usage_of(raw: Raw) -> Usage | None:
    """None for a pod that has ended, or is on no node yet and pinned to none."""
    metadata, spec = mapping(raw, "metadata"), mapping(raw, "spec")
    if mapping(raw, "status").get("phase") in _ENDED:
        return None
    node = text(spec, "nodeName") or pinned_to(spec)
    if not node:
        return None
    return Usage(node, requests_of(raw), _job(metadata))


def requests_of(raw: Raw) -> dict[str, int]:
    """What a pod takes of its node, the place of one pod included."""
    spec, status = mapping(raw, "spec"), mapping(raw, "status")
    total = _all_of(items(spec, "containers"), _in_use(status, "containerStatuses"))
    if "initContainers" in spec:
        total = _with_init(total, items(spec, "initContainers"), _in_use(status, "initContainerStatuses"))
    if "resources" in spec:  # of the whole pod: holds instead of the sum, for what it names
        total.update(_asked(spec))
    if "overhead" in spec:
        _add(total, amounts(spec, "overhead"))
    total[PODS] = UNIT
    return total


def _all_of(containers: Iterable[Raw], in_use: dict[str, Raw]) -> _Sum:
    total: _Sum = {}
    for container in containers:
        _add(total, _needs(container, in_use))
    return total


def _with_init(together: _Sum, containers: Iterable[Raw], in_use: dict[str, Raw]) -> _Sum:
    """`together`: of the containers. A sidecar stays; any other init container is gone before the next one starts."""
    sidecars: _Sum = {}
    most: _Sum = {}
    for container in containers:
        needs = _needs(container, in_use)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, needs)
            _raise_to(most, sidecars)
        else:
            _add(needs, sidecars)
            _raise_to(most, needs)
    _add(together, sidecars)
    _raise_to(together, most)
    return together


def _needs(container: Raw, in_use: dict[str, Raw]) -> _Sum:
    """What it asks for; while it is resized in place, no less than what it has."""
    needs = _asked(container)
    if in_use and (status := in_use.get(text(container, "name"))) is not None:
        _raise_to(needs, amounts(status, "allocatedResources"))
        _raise_to(needs, amounts(mapping(status, "resources"), "requests"))
    return needs


def _asked(part: Raw) -> _Sum:
    """A limit without a request is a request, too."""
    resources = mapping(part, "resources")
    limits, requests = amounts(resources, "limits"), amounts(resources, "requests")
    return {**limits, **requests} if limits else requests


def _in_use(status: Raw, key: str) -> dict[str, Raw]:
    """Containers' states that say how much they have."""
    states = items(status, key)
    return {text(s, "name"): s for s in states if "allocatedResources" in s or "resources" in s}


def _add(total: _Sum, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: _Sum, least: Amounts) -> None:
    for name, amount in least.items():
        if amount > total.get(name, 0):
            total[name] = amount


def pinned_to(spec: Raw) -> str:
    """The one node that its required affinity leaves it; empty where it names none, or several."""
    terms = _required_terms(spec)
    nodes = {_named(term) for term in terms}
    return nodes.pop() if len(nodes) == 1 else ""


def _required_terms(spec: Raw) -> list[dict[str, Any]]:
    affinity = mapping(mapping(spec, "affinity"), "nodeAffinity")
    return items(mapping(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms")


def _named(term: Raw) -> str:
    for row in items(term, "matchFields"):
        values = row.get("values")
        by_name = row.get("key") == "metadata.name" and row.get("operator") == "In"
        if by_name and type(values) is list and len(values) == 1:
            return str(values[0])
    return ""


def kept_off(spec: Raw) -> frozenset[str]:
    """Nodes that its required affinity excludes by name, in every one of its terms."""
    off = [
        {str(name) for row in items(term, "matchFields") for name in _unwanted(row)} for term in _required_terms(spec)
    ]
    return frozenset(set.intersection(*off)) if off else frozenset()


def _unwanted(row: Raw) -> list[Any]:
    values = row.get("values")
    wanted = row.get("key") == "metadata.name" and row.get("operator") == "NotIn" and type(values) is list
    return values if wanted and type(values) is list else []


def _job(metadata: Raw) -> str:
    name = text(mapping(metadata, "labels"), names.LABEL_JOB)
    return sys.intern(f"{text(metadata, 'namespace')}/{name}") if name else ""
