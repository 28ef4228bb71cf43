"""The pods. Each is one `prepare` container that readies the data, then the `agent` that runs the ranks.

Pods are as harmless as they can be, since they run people's code on people's text: no API token, no root, no
capabilities, a root file system that cannot be written. What must be written has a volume of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator import names
from ring_operator.plan import ParallelPlan
from ring_operator.render.config import Place
from ring_operator.render.metadata import Manifest, metadata
from ring_operator.render.scheduling import scheduling
from ring_operator.render.volumes import mounts_of, volumes_of
from ring_operator.spec import TrainingJob
from ring_operator.spec.workers import Workers
from ring_worker.contract import ENV_AFTER_EPOCH, ENV_CONFIG, ENV_POD, ENV_RANKS, ENV_STATUS_ADDRESS

_NOBODY = 65532  # a user without a name or rights, the same in the worker's image


@dataclass(frozen=True, slots=True)
class Slot:
    """One pod's place in the job. `attempt`: how often it was replaced. `avoid`: nodes that the scheduler must not
    give it. `gated`: the operator chooses its node; until then the scheduler is kept off it.

    `after_epoch`: the last epoch that it has no part in; the table of that one may still be there when it starts.
    """

    index: int
    attempt: int = 0
    avoid: tuple[str, ...] = ()
    after_epoch: int = 0
    gated: bool = False


def pod(job: TrainingJob, plan: ParallelPlan, place: Place, slot: Slot) -> Manifest:
    name = names.pod(job.name, slot.index, slot.attempt)
    about = metadata(job, place, name, names.pod_labels(job.name, slot.index, slot.attempt))
    after = str(slot.after_epoch)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**about, "annotations": {names.ANNOTATION_EPOCH: after}},
        "spec": {
            "hostname": name,
            "subdomain": names.subdomain(job.name),
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": job.spec.workers.termination_grace_period_seconds,
            "securityContext": _pod_security(),
            **scheduling(job, slot.avoid, slot.gated),
            "initContainers": [_prepare(job, plan, place)],
            "containers": [_agent(job, plan, place, after)],
            "volumes": volumes_of(job),
        },
    }


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": _NOBODY,
        "runAsGroup": _NOBODY,
        "fsGroup": _NOBODY,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _prepare(job: TrainingJob, plan: ParallelPlan, place: Place) -> Manifest:
    command = ["python", "-m", "ring_worker.data"]
    return _container(job, plan, place, names.PREPARE_CONTAINER, command)


def _agent(job: TrainingJob, plan: ParallelPlan, place: Place, after_epoch: str) -> Manifest:
    container = _container(job, plan, place, names.AGENT_CONTAINER, ["python", "-m", "ring_worker.agent"])
    return {
        **container,
        "env": [{"name": ENV_AFTER_EPOCH, "value": after_epoch}, *container["env"]],
        "ports": [{"name": "status", "containerPort": names.STATUS_PORT}],
        "resources": _with_devices(container["resources"], job.spec.workers, plan),
    }


def _container(job: TrainingJob, plan: ParallelPlan, place: Place, name: str, command: list[str]) -> Manifest:
    workers = job.spec.workers
    env_from = [e.model_dump(by_alias=True) for e in workers.env_from]
    return {
        "name": name,
        "image": workers.image or place.image,
        "command": command,
        "env": _env(workers, plan),
        **({"envFrom": env_from} if env_from else {}),
        "resources": {k: dict(v) for k, v in workers.resources.model_dump(by_alias=True).items() if v},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts_of(job),
    }


def _env(workers: Workers, plan: ParallelPlan) -> list[Manifest]:
    """Each name once: where the user sets one of ours (`spec.rules` says which may be), the user's holds."""
    users = {variable.name: variable.model_dump(by_alias=True, exclude_none=True) for variable in workers.env}
    return [*(own for own in _own_env(plan) if own["name"] not in users), *users.values()]


def _own_env(plan: ParallelPlan) -> list[Manifest]:
    return [
        {"name": ENV_POD, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": ENV_STATUS_ADDRESS, "value": f"$(POD_IP):{names.STATUS_PORT}"},
        {"name": ENV_CONFIG, "value": f"{names.CONFIG_PATH}/{names.CONFIG_KEY}"},
        {"name": ENV_RANKS, "value": f"{names.RANKS_PATH}/{names.RANKS_KEY}"},
        {"name": "OMP_NUM_THREADS", "value": str(plan.threads)},
        # Compilers and plots keep caches, by default in a home that nobody can write here.
        {"name": "TRITON_CACHE_DIR", "value": "/tmp/triton"},
        {"name": "TORCHINDUCTOR_CACHE_DIR", "value": "/tmp/inductor"},
        {"name": "MPLCONFIGDIR", "value": "/tmp/matplotlib"},
    ]


def _with_devices(resources: Manifest, workers: Workers, plan: ParallelPlan) -> Manifest:
    """Devices are asked for as limits; Kubernetes takes their requests to be the same."""
    devices = {names.GPU_RESOURCE: str(plan.ranks_per_node)} if plan.device == "cuda" else {}
    if workers.rdma is not None:
        devices[workers.rdma.resource] = str(workers.rdma.count)
    limits = {**resources.get("limits", {}), **devices}
    return {**resources, "limits": limits} if limits else resources
