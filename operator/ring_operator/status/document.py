"""The status of a RingTrainingJob as it stands on the API server: typed, bounded, and the schema of the CRD.

Most of it is rebuilt from what is observed at every reconcile. Four things cannot be, since they must outlive every
child: `epoch`, `attempts`, `restarts` and `nodeFailures`; they are counters, never a state that is acted on. Reading is
lenient: a field that a newer or older operator wrote is passed over, a value that does not fit is dropped with all of
the status, which is then built anew.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Word = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
Message = Annotated[str, Field(max_length=4096)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Number = Annotated[int, Field(ge=0, le=2**53)]
# Beyond 2^63 the API server compares whole values with a bound that has wrapped round.
Figure = Annotated[float, Field(ge=-1e15, le=1e15)]
StepNumber = Annotated[int, Field(ge=-1, le=2**53)]
Many = 16384  # pods of a job, and so ring members, attempts and nodes


class Part(BaseModel):
    """A mapping of the status: camelCase outside, unknown fields passed over, never changed."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class Condition(Part):
    """One thing that is or is not so."""

    type: Word
    """What it is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Word
    """Why, in one word for programs."""
    message: Message = ""
    """Why, for people."""
    observed_generation: Number = 0
    """Generation of the spec that it was found with."""
    last_transition_time: Time
    """When `status` changed last."""


class PlanStatus(Part):
    """How the job is spread over ranks."""

    data: Number
    """Data parallel degree: sequences that are trained at the same time."""
    pipeline: Number
    """Pipeline parallel degree."""
    context: Number
    """Context parallel degree: ranks that share a sequence."""
    tensor: Number
    """Tensor parallel degree."""
    ulysses: Number
    """Ranks of a ring that share a place and split its heads."""
    world_size: Number
    """Ranks in all."""
    nodes: Number
    """Pods, each on a node of its own."""
    ranks_per_node: Number
    """Ranks of each pod."""


class RingStatus(Part):
    """One ring of the epoch that runs."""

    index: Number
    """Its number, from 0."""
    nodes: Annotated[tuple[Name, ...], Field(max_length=Many)] = ()
    """Nodes in ring order; the last one sends to the first."""
    tokens_per_second: Figure | None = None
    """Tokens trained by this ring in a second."""
    efficiency: Figure | None = None
    """Time the attention would take with the isolated kernel alone, over the time it took."""


class HopsStatus(Part):
    """Hops of the rings that cross one level of the network."""

    level: Name
    """Level that the hops leave; node: hops inside the closest domain."""
    hops: Number
    """How many, over all rings, the one from the last node to the first included."""


class PlacementStatus(Part):
    """How the rings of the epoch that runs lie in the network."""

    hops: Annotated[tuple[HopsStatus, ...], Field(max_length=16)] = ()
    """Hops by the level that they cross, the widest first."""
    cost: Figure | None = None
    """Sum of the hops' weights."""
    lower_bound: Figure | None = None
    """No placement on these nodes costs less."""
    notes: Message = ""
    """What there is to know of it."""
    retries: Number = 0
    """How often all pods were made anew since a chosen node did not take its pod."""
    retry_time: Time | None = None
    """Before this no pods are made."""


class Progress(Part):
    """How far the training is."""

    step: StepNumber = -1
    """Last finished step; -1: none yet."""
    total_steps: Number = 0
    """Steps of the whole training."""
    tokens: Number = 0
    """Tokens trained since the first step."""
    loss: Figure | None = None
    """Mean nats a token of the last logged step."""
    tokens_per_second: Figure | None = None
    """Tokens trained in a second, by all rings together."""
    efficiency: Figure | None = None
    """Efficiency of the rings, weighted by their time."""
    eta_seconds: Number | None = None
    """Seconds to the last step at the present rate."""
    last_checkpoint_step: StepNumber = -1
    """Step of the newest complete checkpoint; -1: none yet."""
    last_progress_time: Time | None = None
    """When the last step was finished."""


class Restarts(Part):
    """Restarts since the job was created, by what broke it."""

    application: Number = 0
    """After errors of the program."""
    infrastructure: Number = 0
    """After errors of nodes and network."""
    total: Number = 0
    """Both together."""
    without_progress: Number = 0
    """The last ones in a row that brought no newer checkpoint."""
    checkpoint_at_restart: StepNumber = -1
    """Step of the newest checkpoint when the job was last restarted."""


class Attempt(Part):
    """A pod that was replaced."""

    index: Number
    """The pod's number in the job."""
    attempt: Number
    """How often it was replaced; a part of its present name."""


class NodeFailures(Part):
    """Failures of this job that a node is held to account for."""

    node: Name
    """The node."""
    failures: Number
    """How many."""


class ExcludedNode(Part):
    """A node that this job avoids for a time."""

    node: Name
    """The node."""
    reason: Message
    """Why."""
    until: Time
    """When it may be used again."""


class JobStatus(Part):
    """What is true of the job."""

    observed_generation: Number = 0
    """Generation of the spec that this was found with."""
    state: Word = ""
    """Summary of the conditions, for people: Pending, Starting, Running, Restarting, Suspended, Succeeded, Failed,
    Invalid."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    """What is so, and why: Planned, Placed, Running, Progressing, Degraded, Suspended, Succeeded, Failed."""
    plan: PlanStatus | None = None
    """How the job is spread over ranks."""
    rings_ready: Word = ""
    """Rings of which every rank runs, and all rings: 2/2."""
    rings: Annotated[tuple[RingStatus, ...], Field(max_length=Many)] = ()
    """The rings of the epoch that runs."""
    epoch: Number = 0
    """Epoch of the rank table that runs or is to be published next."""
    placement: PlacementStatus | None = None
    """How the rings lie in the network."""
    progress: Progress | None = None
    """How far the training is."""
    restarts: Restarts = Restarts()
    """Restarts since the job was created."""
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=Many)] = ()
    """Pods that were replaced."""
    node_failures: Annotated[tuple[NodeFailures, ...], Field(max_length=Many)] = ()
    """Failures by node."""
    excluded_nodes: Annotated[tuple[ExcludedNode, ...], Field(max_length=Many)] = ()
    """Nodes that this job avoids for a time."""
    last_failure: Message = ""
    """What broke the job last."""
    restart_request: Word = ""
    """The restart that was asked for and obeyed last (annotation ringtraining.dev/restart)."""
    start_time: Time | None = None
    """When the first rank table was published."""
    completion_time: Time | None = None
    """When the job ended."""
