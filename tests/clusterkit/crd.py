"""The CRD of RingTrainingJobs on a test's cluster."""

from __future__ import annotations

from clusterkit.kubectl import Kubectl
from processes import wait_until
from ring_operator.crd import definition

ESTABLISHED_SECONDS = 30


def install_crd(kubectl: Kubectl) -> None:
    """Apply it, and return when jobs can be made."""
    kubectl.apply(definition())
    await_crd(kubectl)


def await_crd(kubectl: Kubectl) -> None:
    """`kubectl wait` gives up on a CRD that has no status yet."""
    name = definition()["metadata"]["name"]

    def established() -> bool:
        conditions = kubectl.json("get", "crd", name).get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    wait_until(established, ESTABLISHED_SECONDS, f"{name} is established")
