"""All objects of a job at once; `children` gives those that its pods share, `pod` one pod alone."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.plan import ParallelPlan
from ring_operator.render.config import Place
from ring_operator.render.metadata import Manifest
from ring_operator.render.pods import Slot, pod
from ring_operator.render.shared import config_map, disruption_budget, network_policy, service
from ring_operator.spec import TrainingJob


@dataclass(frozen=True, slots=True)
class Rendered:
    """Everything that a job needs but the rank table. All but the pods carry the hash of their manifest."""

    config_map: Manifest
    service: Manifest
    network_policy: Manifest
    disruption_budget: Manifest | None
    pods: tuple[Manifest, ...]

    @property
    def children(self) -> tuple[Manifest, ...]:
        """What the pods share, in the order in which it is made."""
        budget = (self.disruption_budget,) if self.disruption_budget else ()
        return (self.config_map, self.service, self.network_policy, *budget)


def render(job: TrainingJob, plan: ParallelPlan, place: Place) -> Rendered:
    """Render a job of which `unsupported` finds nothing. Deterministic: same arguments, same objects."""
    return _rendered(job, plan, place, tuple(pod(job, plan, place, Slot(index)) for index in range(plan.nodes)))


def children(job: TrainingJob, plan: ParallelPlan, place: Place) -> tuple[Manifest, ...]:
    """As `render(...).children`, without making thousands of pods for it."""
    return _rendered(job, plan, place, ()).children


def _rendered(job: TrainingJob, plan: ParallelPlan, place: Place, pods: tuple[Manifest, ...]) -> Rendered:
    return Rendered(
        config_map=config_map(job, plan, place),
        service=service(job, place),
        network_policy=network_policy(job, place),
        disruption_budget=disruption_budget(job, plan, place),
        pods=pods,
    )
