"""The objects of a job that all its pods share: RunConfig, DNS names, who may speak to them, who may evict them."""

from __future__ import annotations

from ring_operator import names
from ring_operator.plan import ParallelPlan
from ring_operator.render.config import Place, run_config
from ring_operator.render.metadata import Manifest, metadata, with_hash
from ring_operator.spec import TrainingJob


def config_map(job: TrainingJob, plan: ParallelPlan, place: Place) -> Manifest:
    """Holds the RunConfig."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, place, names.config_map(job.name), names.job_labels(job.name)),
        "data": {names.CONFIG_KEY: run_config(job, plan, place).to_json()},
    }
    return with_hash(manifest)


def service(job: TrainingJob, place: Place) -> Manifest:
    """Gives pods DNS names; it balances nothing."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, place, names.subdomain(job.name), names.job_labels(job.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB: job.name},
            "ports": [{"name": "status", "port": names.STATUS_PORT}],
        },
    }
    return with_hash(manifest)


def network_policy(job: TrainingJob, place: Place) -> Manifest:
    """Ranks listen to whoever knows the token of their epoch, so nobody but the job's own pods gets as far as that.

    Status and metrics say nothing that needs hiding inside a cluster, and operator and Prometheus may be anywhere.
    """
    own = {"podSelector": {"matchLabels": {names.LABEL_JOB: job.name}}}
    status = {"port": names.STATUS_PORT, "protocol": "TCP"}
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, place, names.network_policy(job.name), names.job_labels(job.name)),
        "spec": {
            **own,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [own]}, {"from": [{"namespaceSelector": {}}], "ports": [status]}],
        },
    }
    return with_hash(manifest)


def disruption_budget(job: TrainingJob, plan: ParallelPlan, place: Place) -> Manifest | None:
    """None where the job asks for none.

    Kubernetes can count only `minAvailable` for pods of a custom resource without a scale: every one of them here.
    """
    if not job.spec.workers.disruption_budget:
        return None
    manifest = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, place, names.disruption_budget(job.name), names.job_labels(job.name)),
        "spec": {"minAvailable": plan.nodes, "selector": {"matchLabels": {names.LABEL_JOB: job.name}}},
    }
    return with_hash(manifest)


def ranks_map(job: TrainingJob, place: Place, table: str) -> Manifest:
    """Holds the rank table of an epoch, as JSON."""
    return _data_map(job, place, names.ranks_map(job.name), {names.RANKS_KEY: table})


def stacks_map(job: TrainingJob, place: Place) -> Manifest:
    """Will hold what every rank was doing when the job hung, by pod."""
    return _data_map(job, place, names.stacks_map(job.name), {})


def _data_map(job: TrainingJob, place: Place, name: str, data: dict[str, str]) -> Manifest:
    about = metadata(job, place, name, names.job_labels(job.name))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}
