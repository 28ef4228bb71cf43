"""What `kubectl apply -k manifests` installs, but for the operator's Deployment: tests run that as a process."""

from __future__ import annotations

from pathlib import Path

from clusterkit.kubectl import Kubectl
from processes import wait_until
from ring_operator import names

MANIFESTS = Path(__file__).parents[2] / "manifests"
CRD = f"{names.PLURAL}.{names.GROUP}"
SERVED_SECONDS = 60


def install(kubectl: Kubectl) -> None:
    """The CRD, served when this returns, and the operator's service account with its rights."""
    install_crd(kubectl)
    kubectl("apply", "--server-side", "-k", str(MANIFESTS / "rbac"))


def install_crd(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-k", str(MANIFESTS / "crd"))
    await_crd(kubectl)


def await_crd(kubectl: Kubectl) -> None:
    """`kubectl wait` gives up on a CRD that has no status yet."""

    def served() -> bool:
        conditions = kubectl.json("get", "crd", CRD).get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    wait_until(served, SERVED_SECONDS, f"{CRD} is served")
