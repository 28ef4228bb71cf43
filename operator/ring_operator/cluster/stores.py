"""The informers of everything that a reconcile looks at, and who is told of their changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ring_operator import names
from ring_operator.cluster import paths
from ring_operator.cluster.api import Api
from ring_operator.cluster.informer import Informer
from ring_operator.cluster.ledger import Ledger
from ring_operator.observe.pods import PodFacts, pod_facts
from ring_operator.topology import Node, Usage, node_of, usage_of

CHILDREN = ("ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget")
_OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ChildFacts:
    """An object beside the pods: whose it is, and the hash of what it was made from."""

    kind: str
    name: str
    job: Key
    job_uid: str
    digest: str


@dataclass(frozen=True, slots=True)
class Held:
    """A pod: `facts` where it is one of a job, `usage` where it takes something of a node."""

    facts: PodFacts | None
    usage: Usage | None


class Stores:
    """`due`: called with the key of a job that something happened to. `namespaces` empty: all of them.

    All pods of the cluster are held, for what they take of its nodes. In single namespaces nodes and other people's
    pods are not seen: a lost node shows only by what becomes of its pods, and the scheduler places them.
    """

    def __init__(self, api: Api, namespaces: Sequence[str], due: Callable[[Key], None]) -> None:
        self._due = due
        self._pods: dict[Key, dict[str, PodFacts]] = {}
        self._children: dict[Key, dict[tuple[str, str], ChildFacts]] = {}
        self._on_node: dict[str, set[Key]] = {}
        scopes: Sequence[str | None] = namespaces or (None,)
        only = {"labelSelector": _OURS} if namespaces else {}
        self.pods: list[Informer[Held]] = [
            Informer(api, paths.collection("Pod", s), held if not namespaces else _held_ours, self._pod, **only)
            for s in scopes
        ]
        self.children: list[Informer[ChildFacts]] = [
            Informer(api, paths.collection(kind, s), _child_of(kind), self._child, labelSelector=_OURS)
            for s in scopes
            for kind in CHILDREN
        ]
        self.nodes: list[Informer[Node]] = [] if namespaces else [Informer(api, paths.NODES, node_of, self._node)]
        self.ledger = None if namespaces else Ledger(lambda: self.nodes[0].items)

    @property
    def informers(self) -> list[Informer[Any]]:
        return [*self.pods, *self.children, *self.nodes]

    async def synced(self) -> None:
        await asyncio.gather(*(informer.synced.wait() for informer in self.informers))

    @property
    def is_synced(self) -> bool:
        return all(informer.synced.is_set() for informer in self.informers)

    def staleness(self) -> dict[str, float]:
        """Seconds since the API server was heard last, by resource."""
        now = time.monotonic()
        return {informer.path: now - informer.heard for informer in self.informers if informer.heard}

    def pods_of(self, job: Key) -> tuple[PodFacts, ...]:
        return tuple(self._pods.get(job, {}).values())

    def children_of(self, job: Key, uid: str) -> dict[tuple[str, str], str]:
        found = self._children.get(job, {}).items()
        return {identity: child.digest for identity, child in found if child.job_uid == uid}

    def unready(self, wanted: Iterable[str]) -> frozenset[str]:
        """Those of the nodes that are known and not ready, or gone."""
        if not self.nodes:
            return frozenset()
        nodes = self.nodes[0].items
        return frozenset(n for n in set(wanted) if n and not ((node := nodes.get(("", n))) and node.ready))

    def _pod(self, before: Held | None, now: Held | None) -> None:
        if self.ledger is not None:
            self.ledger.pod(before.usage if before else None, now.usage if now else None)
        for held in (before, now):
            if held is not None and (pod := held.facts) is not None:
                key = (pod.namespace, pod.job)
                self._put(self._pods, key, pod.name, now.facts if now is held else None)
                if pod.node:
                    self._on_node.setdefault(pod.node, set()).add(key)
                self._due(key)

    def _child(self, before: ChildFacts | None, now: ChildFacts | None) -> None:
        for child in (before, now):
            if child is not None:
                self._put(self._children, child.job, (child.kind, child.name), now if child is now else None)
                self._due(child.job)

    def _node(self, before: Node | None, now: Node | None) -> None:
        node = now or before
        if self.ledger is not None:
            self.ledger.node_changed()
        for key in self._on_node.get(node.name, ()) if node else ():
            self._due(key)

    @staticmethod
    def _put(store: dict[Key, dict[Any, Any]], key: Key, name: Any, value: Any) -> None:
        if value is not None:
            store.setdefault(key, {})[name] = value
            return
        inner = store.get(key, {})
        inner.pop(name, None)
        if not inner:
            store.pop(key, None)


def held(raw: dict[str, Any]) -> Held | None:
    """What is kept of a pod of the cluster."""
    facts, usage = pod_facts(raw), usage_of(raw)
    return Held(facts, usage) if facts or usage else None


def _held_ours(raw: dict[str, Any]) -> Held | None:
    facts = pod_facts(raw)
    return Held(facts, None) if facts else None


def _child_of(kind: str) -> Callable[[dict[str, Any]], ChildFacts | None]:
    def facts(raw: dict[str, Any]) -> ChildFacts | None:
        metadata = raw.get("metadata") or {}
        owners = [o for o in metadata.get("ownerReferences") or () if o.get("kind") == names.KIND]
        if not owners:
            return None
        digest = (metadata.get("annotations") or {}).get(names.ANNOTATION_HASH, "")
        job = (str(metadata.get("namespace", "")), str(owners[0].get("name", "")))
        return ChildFacts(kind, str(metadata.get("name", "")), job, str(owners[0].get("uid", "")), str(digest))

    return facts
