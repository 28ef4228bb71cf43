"""One pod as somebody saw it: a process of this machine, or a pod of a cluster and its agent's answer."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.observe.failures import FailureClass
from ring_worker.contract import AgentStatus


@dataclass(frozen=True, slots=True)
class PodLook:
    """One pod as somebody saw it. `ended`: its process is gone, with `exit_code` if that is known.

    `silent_seconds`: since its agent answered last, or since it was started. `table_seconds`: for how long it could
    have read the newest rank table. `error`: the last lines of an ended pod. `reason`, `blame`: as
    Kubernetes puts it, see `Failure`.
    """

    name: str
    preparing: bool = False
    ended: bool = False
    exit_code: int | None = None
    status: AgentStatus | None = None
    silent_seconds: float = 0.0
    table_seconds: float = 0.0
    error: str = ""
    reason: str = ""
    blame: FailureClass | None = None
