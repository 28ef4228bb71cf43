"""Where it runs: pods, what they may use, and how they are placed.

There is no free pod template: a narrow list of fields can be checked and explained, a free patch cannot. References
are to the job's own namespace, always.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from ring_operator.spec.base import (
    AbsolutePath,
    CountOrNone,
    DnsLabel,
    DnsName,
    LabelKey,
    LabelValue,
    Line,
    PerNode,
    Processes,
    Quantity,
    Section,
    Text,
)

EnvName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
KeyName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Quantities = Annotated[dict[LabelKey, Quantity], Field(max_length=16)]


class Resources(Section):
    """What a pod asks for, beside its GPUs."""

    requests: Quantities = Field(default_factory=dict)
    """Resources that the pod is guaranteed, such as cpu and memory."""
    limits: Quantities = Field(default_factory=dict)
    """Resources that the pod may not exceed."""


class KeyReference(Section):
    """A key of a Secret or a ConfigMap."""

    name: DnsName
    """Name of the object."""
    key: KeyName
    """Key in the object."""


class EnvSource(Section):
    """Where the value of a variable comes from: exactly one."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvVariable(Section):
    """One variable of the environment: its value, or where it comes from."""

    name: EnvName
    """Name of the variable."""
    value: Text | None = None
    """Its value. Credentials belong into valueFrom."""
    value_from: EnvSource | None = None
    """Where its value comes from."""


class NameReference(Section):
    """An object by its name."""

    name: DnsName
    """Name of the object."""


class EnvFrom(Section):
    """A whole object as variables."""

    secret_ref: NameReference
    """The Secret whose keys become variables."""


class Claim(Section):
    """A PersistentVolumeClaim."""

    claim_name: DnsName
    """Name of the claim."""


class EmptyDir(Section):
    """A folder that lives as long as the pod."""

    medium: Literal["", "Memory"] = ""
    """Memory: kept in RAM, and counted against the pod's memory."""
    size_limit: Quantity | None = None
    """Most that it may hold."""


class SecretVolume(Section):
    """The keys of a Secret as files."""

    secret_name: DnsName
    """Name of the Secret."""


class Projection(Section):
    """One part of a projected volume: exactly one."""

    secret: NameReference | None = None
    """A Secret."""
    config_map: NameReference | None = None
    """A ConfigMap."""


class Projected(Section):
    """Several objects as files of one folder."""

    sources: Annotated[tuple[Projection, ...], Strict(False), Field(min_length=1, max_length=16)]
    """The objects."""


class Volume(Section):
    """A volume, and where it is mounted: exactly one of the kinds."""

    name: DnsLabel
    """Name of the volume in the pod."""
    mount_path: AbsolutePath
    """Where it is mounted in the containers."""
    read_only: bool = False
    """Whether the containers may only read it."""
    persistent_volume_claim: Claim | None = None
    """A claim, such as shared storage for checkpoints."""
    empty_dir: EmptyDir | None = None
    """A folder that lives as long as the pod."""
    config_map: NameReference | None = None
    """The keys of a ConfigMap as files."""
    secret: SecretVolume | None = None
    """The keys of a Secret as files."""
    projected: Projected | None = None
    """Several objects as files of one folder."""


class Toleration(Section):
    """A taint that the pods tolerate."""

    key: LabelKey | None = None
    """Key of the taint. Default: every key, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists: any value. Equal: the value below."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Default: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How long a NoExecute taint is tolerated. Default: for ever."""


class Rdma(Section):
    """Network devices for remote direct memory access."""

    resource: LabelKey
    """Name of the extended resource, such as rdma/hca."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Devices for each pod."""


class Workers(Section):
    """The pods: one a node, one rank a GPU."""

    nodes: Annotated[int, Field(ge=1, le=16384)] = 1
    """Number of pods, each on a node of its own."""
    gpus_per_node: PerNode = "auto"
    """GPUs of each node, one rank a GPU. 0: ranks compute on the CPU and talk by gloo. auto: what the machine has."""
    processes_per_node: Processes = "auto"
    """Ranks of each node where there are no GPUs. auto: as many as the degrees ask for, else one a CPU core."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")] | None = None
    """Container image of the worker. Default: the operator's own worker image."""
    resources: Resources = Resources()
    """What a pod asks for, beside its GPUs."""
    env: Annotated[tuple[EnvVariable, ...], Strict(False), Field(max_length=128)] = ()
    """Variables of the environment."""
    env_from: Annotated[tuple[EnvFrom, ...], Strict(False), Field(max_length=16)] = ()
    """Secrets whose keys become variables."""
    volumes: Annotated[tuple[Volume, ...], Strict(False), Field(max_length=32)] = ()
    """Volumes, and where they are mounted."""
    tolerations: Annotated[tuple[Toleration, ...], Strict(False), Field(max_length=32)] = ()
    """Taints that the pods tolerate."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels that a node must have."""
    priority_class_name: DnsName | None = None
    """Priority class of the pods."""
    service_account_name: DnsName | None = None
    """Service account of the pods. They never get its token."""
    rdma: Rdma | None = None
    """Network devices for remote direct memory access."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm, kept in RAM."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Time to save a checkpoint when a pod is told to stop."""
    disruption_budget: bool = False
    """Whether voluntary evictions of pods, as when a node is drained, are refused while the job runs."""


LevelName = Annotated[str, Field(min_length=1, max_length=317, pattern=r"^[!-~]+$")]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Within(Section):
    """A whole ring inside one domain of the network."""

    level: Line
    """Name of the level, such as rack."""
    policy: Literal["preferred", "required"] = "preferred"
    """preferred: rings cross domains where they must. required: they never do."""


class Placement(Section):
    """Which nodes the pods get, and in which order the rings go over them."""

    mode: Literal["operator", "scheduler"] = "operator"
    """operator: pods are pinned to chosen nodes. scheduler: the cluster's scheduler places, ranks follow."""
    levels: Annotated[tuple[LabelKey, ...], Strict(False), Field(max_length=8)] = ()
    """Node label keys of the network's levels, widest first. Default: well-known ones."""
    within: Within | None = None
    """A whole ring inside one domain of a level."""
    weights: Annotated[dict[LevelName, Weight], Field(max_length=16)] = Field(default_factory=dict)
    """Cost of a hop that leaves a domain of the level, by level's name; node: of a hop inside the closest domain.
    Default: ratios of usual bandwidths."""
    exclude_nodes: Annotated[tuple[DnsName, ...], Strict(False), Field(max_length=1024)] = ()
    """Nodes never to use."""


class Gang(Section):
    """How all pods start together or not at all."""

    backend: Literal["auto", "none", "native", "kueue", "volcano", "kai", "coscheduling"] = "auto"
    """The scheduler's own way. auto: what the cluster has."""
    queue: DnsName | None = None
    """Queue that the job waits in."""


class Budget(Section):
    """How often a job may start again, by what broke it."""

    application: CountOrNone = 3
    """Restarts after errors of the program."""
    infrastructure: CountOrNone = 20
    """Restarts after errors of nodes and network."""
    no_progress: CountOrNone = 3
    """Restarts in a row without a newer checkpoint."""


class Recovery(Section):
    """What happens when something breaks."""

    budget: Budget = Budget()
    """How often the job may start again."""
    stall_timeout_seconds: Annotated[int, Field(ge=10, le=86400)] = 600
    """Time without progress after which the ranks are started again."""
    exclude_node_after: Annotated[int, Field(ge=0, le=1000)] = 2
    """Failures of a node after which this job avoids it. 0: never."""
