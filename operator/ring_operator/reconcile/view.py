"""What `cluster` is given to look at, and the acts that it asks for. Frozen values; nobody here talks to anyone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ring_operator import names
from ring_operator.observe.pods import PodFacts
from ring_operator.placement import Ground
from ring_operator.plan import ParallelPlan
from ring_operator.render import Manifest, Place
from ring_operator.spec import TrainingJob
from ring_operator.status.document import JobStatus
from ring_worker.contract import AgentStatus, RankTable


@dataclass(frozen=True, slots=True)
class Identity:
    """What the API server says of the job's object. `restart_request`: value of its annotation, or empty.

    `deleting`: it goes as soon as its children have gone, and gets no new ones.
    """

    uid: str
    namespace: str
    name: str
    generation: int
    created: float = 0.0
    restart_request: str = ""
    deleting: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent said last, or None; and for how many seconds it has not answered when it was asked."""

    status: AgentStatus | None
    silent: float = 0.0


@dataclass(frozen=True, slots=True)
class Fresh:
    """What must be new at every publication: nobody can guess the token, and no old process holds the port."""

    token: str
    port: int


class Survey(Protocol):
    """Called only by who needs it, since it looks at every node."""

    def __call__(self, kept: frozenset[str], avoided: frozenset[str]) -> Ground:
        """`kept`: nodes that the job holds, free to it whatever is said against them. `avoided`: not free to it."""
        ...


@dataclass(frozen=True)
class View:
    """One job with all that is known of it. Times in seconds since 1970.

    `wanted_children`: the objects beside the pods and the rank table that there shall be. `pods`: those that the job's
    object owns. `unready`: nodes that do not report. `children`: (kind, name) of the
    other objects that exist -> their hash. `table`: the newest that was published. `published_at`: when.
    `problem`: why what was to be done last time could not be done. `ground`: None where nodes cannot be seen.
    """

    identity: Identity
    job: TrainingJob
    plan: ParallelPlan
    place: Place
    wanted_children: tuple[Manifest, ...]
    status: JobStatus
    now: float
    fresh: Fresh
    pods: tuple[PodFacts, ...] = ()
    agents: Mapping[str, Answer] = field(default_factory=dict)
    unready: frozenset[str] = frozenset()
    children: Mapping[tuple[str, str], str] = field(default_factory=dict)
    table: RankTable | None = None
    published_at: float = 0.0
    problem: str = ""
    ground: Survey | None = None

    @cached_property
    def attempts(self) -> dict[int, int]:
        return {entry.index: entry.attempt for entry in self.status.attempts}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the pods that there shall be, by index."""
        return tuple(names.pod(self.job.name, i, self.attempts.get(i, 0)) for i in range(self.plan.nodes))

    @cached_property
    def by_name(self) -> dict[str, PodFacts]:
        return {pod.name: pod for pod in self.pods}

    @property
    def answers(self) -> list[AgentStatus]:
        """Of the agents of the pods that there shall be, as far as they have said anything."""
        found = (self.agents.get(name) for name in self.names)
        return [answer.status for answer in found if answer is not None and answer.status is not None]

    @cached_property
    def wanted_epoch(self) -> int:
        """The epoch that runs or is to be published next. A status or table that was lost brings no old one back."""
        if self.table is not None:
            return max(1, self.status.epoch, self.table.epoch)
        run = max((answer.epoch for answer in self.answers), default=0)
        return max(1, self.status.epoch, run + 1)

    @property
    def published(self) -> bool:
        return self.table is not None and self.table.epoch == self.wanted_epoch


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a child."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a child that the job no longer asks for."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Apply the ConfigMap of a rank table; the acts after it stamp the pods."""

    table: RankTable
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Create:
    """Create a pod; that it exists already is as good."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Pin:
    """Choose a gated pod's node, and let the scheduler bind it there. `now`: RFC 3339."""

    name: str
    node: str
    now: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete just this pod. `grace` in seconds; None: its own; 0: do not wait for its node."""

    name: str
    uid: str
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """Write the epoch on a pod, which makes its kubelet look at the rank table at once."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class CollectStacks:
    """Ask the agents what their ranks are doing, before these are killed. `manifest`: of the ConfigMap for it."""

    manifest: Manifest
    pods: tuple[str, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class Tell:
    """An event of the job."""

    type: str  # Normal | Warning
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """The job outlived its ttl."""


Act = Apply | Remove | Publish | Create | Pin | Delete | Stamp | CollectStacks | Tell | DeleteJob


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is true, and what is to be done, in this order. `again`: seconds until another look is due, or None."""

    status: JobStatus
    acts: tuple[Act, ...] = ()
    again: float | None = None


def with_hash_apart(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], str]:
    """A child's (kind, name), and its hash."""
    metadata = manifest["metadata"]
    return (manifest["kind"], metadata["name"]), metadata.get("annotations", {}).get(names.ANNOTATION_HASH, "")
