"""What `kubectl apply -k manifests` installs, but for the operator's Deployment: tests run that as a process."""

from __future__ import annotations

from pathlib import Path

from clusterkit.kubectl import Kubectl

MANIFESTS = Path(__file__).parents[2] / "manifests"


def install(kubectl: Kubectl) -> None:
    """The CRD, served when this returns, and the operator's service account with its rights."""
    kubectl("apply", "--server-side", "-k", str(MANIFESTS / "crd"))
    kubectl("apply", "--server-side", "-k", str(MANIFESTS / "rbac"))
    kubectl("wait", "--for=condition=Established", "crd/ringtrainingjobs.ringtraining.dev", "--timeout=60s")
