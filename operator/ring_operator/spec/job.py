"""The whole RingTrainingJob."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ring_operator import names
from ring_operator.spec.base import Count, DnsLabel, LabelKey, LabelValue, Section
from ring_operator.spec.model import Context, Model, Parallelism
from ring_operator.spec.training import Checkpoint, Data, Evaluation, Training
from ring_operator.spec.workers import Gang, Placement, Recovery, Workers

# What the API server adds to an object; a person may send it back, and it says nothing about the training.
_SERVER_FIELDS = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


Annotation = Annotated[str, Field(max_length=262_144)]


class Metadata(Section):
    """The object's name and labels."""

    name: Annotated[str, Field(min_length=1, max_length=names.JOB_NAME_MAX, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the job, and of its Service, whose names begin with a letter; also the beginning of its pods' names."""
    namespace: DnsLabel | None = None
    """Namespace of the job and of everything it refers to."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    """Labels of the job."""
    annotations: Annotated[dict[LabelKey, Annotation], Field(max_length=64)] = Field(default_factory=dict)
    """Notes on the job."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_the_server_adds(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if k not in _SERVER_FIELDS} if isinstance(raw, dict) else raw


class JobSpec(Section):
    """What to train, on what, how, and where."""

    model: Model
    """The model."""
    context: Context
    """The sequence, and how a ring divides it."""
    parallelism: Parallelism = Parallelism()
    """How the work is spread over the ranks."""
    workers: Workers = Workers()
    """The pods."""
    placement: Placement = Placement()
    """Which nodes the pods get."""
    gang: Gang = Gang()
    """How all pods start together or not at all."""
    data: Data
    """The text, and how it becomes tokens."""
    training: Training
    """How long and how the model is trained."""
    checkpoint: Checkpoint = Checkpoint()
    """When and where the state is saved."""
    evaluation: Evaluation = Evaluation()
    """What is measured on documents that are never trained on."""
    recovery: Recovery = Recovery()
    """What happens when something breaks."""
    suspend: bool = False
    """Whether the job saves a checkpoint and gives its nodes back until this is false again."""
    managed_by: LabelKey = names.OPERATOR
    """The controller that looks after the job."""
    active_deadline_seconds: Count | None = None
    """Time after which the job is ended. Default: never."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Time after its end at which the job is deleted. Default: never."""


class TrainingJob(Section):
    """A training job that reads long contexts over rings of ranks."""

    api_version: Literal["ringtraining.dev/v1alpha1"]
    """Group and version of the API."""
    kind: Literal["RingTrainingJob"]
    """Kind of the object."""
    metadata: Metadata
    """The object's name and labels."""
    spec: JobSpec
    """What to train, on what, how, and where."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_the_status(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if k != "status"} if isinstance(raw, dict) else raw

    @property
    def name(self) -> str:
        return self.metadata.name
