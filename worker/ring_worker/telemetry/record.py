"""What a rank tells its pod's agent, one datagram each. Standard library only.

A step that it measured, a checkpoint, a sign of life; and from rank 0 the line that it wrote to metrics.jsonl, which
the agent hands on in `/status`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ring_worker.contract.reports import MetricsLine
from ring_worker.contract.strict import VERSION, dump, load

DATAGRAM_BYTES = 192 * 1024  # a line of some 550 rings; a little less than what Linux sends at once by default


@dataclass(frozen=True, slots=True)
class PassTimes:
    """One rank's passes round the ring, summed. Seconds, but for `bytes` (sent), `flops` (unmasked) and `passes`.

    `wall`: from start to end of the pass. `compute`: in the attention kernels. `comm`: transfers in flight, from
    the later of both posts to the arrival. `exposed`: waiting for a block with nothing to compute, less an empty wait.
    `skew`: the part of the waiting in which the peer had not sent yet. `ideal`: `flops` at the calibrated rate.
    """

    wall: float = 0.0
    compute: float = 0.0
    comm: float = 0.0
    exposed: float = 0.0
    skew: float = 0.0
    ideal: float = 0.0
    bytes: int = 0
    flops: float = 0.0
    passes: int = 0

    def __add__(self, other: PassTimes) -> PassTimes:
        return PassTimes(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Probes:
    """Rows of attention that were computed again densely, and how many of them differed."""

    rows: int = 0
    mismatches: int = 0

    def __add__(self, other: Probes) -> Probes:
        return Probes(self.rows + other.rows, self.mismatches + other.mismatches)


UNPROBED = Probes()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """`tokens`: trained by this rank in this step. `loss`, `grad_norm`: of all ranks. `seconds`: wall time."""

    rank: int
    ring: int
    position: int
    step: int
    tokens: int
    seconds: float
    loss: float
    grad_norm: float
    lr: float
    forward: PassTimes
    backward: PassTimes
    probes: Probes = UNPROBED
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self, indent=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "StepRecord")


@dataclass(frozen=True, slots=True)
class AliveRecord:
    """A rank is at work on something that is no step: an evaluation, the sample, a load."""

    alive_rank: int
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self, indent=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "AliveRecord")


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A checkpoint that this rank 0 completed: `seconds` that training stood still for it, `bytes` on disk."""

    checkpoint_step: int
    seconds: float
    bytes: int
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self, indent=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "CheckpointRecord")


Record = StepRecord | CheckpointRecord | AliveRecord | MetricsLine
