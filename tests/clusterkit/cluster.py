"""The cluster that tests run on: a control plane of their own, or the one that KUBECONFIG names.

In: the environment. Out: a `Cluster`, with what tests need of either; and namespaces that are ready for pods.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterkit import kubeconfigs
from clusterkit.binaries import binary
from clusterkit.commands import Settings
from clusterkit.component import Component
from clusterkit.control_plane import PROGRAMS, ControlPlane
from clusterkit.kubectl import Kubectl, KubectlError
from clusterkit.kwok import kwok
from clusterkit.progress import Say, say_on_stderr

NAMESPACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """`plane` None: it is not ours, and nothing of it may be killed. `folder`: for logs and kubeconfigs."""

    kubeconfig: Path
    kubectl: Kubectl
    folder: Path
    plane: ControlPlane | None = None

    def as_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig."""
        path = self.folder / f"account-{namespace}-{name}.kubeconfig"
        return kubeconfigs.as_service_account(self.kubeconfig, namespace, name, path)

    def kwok(self, say: Say = say_on_stderr) -> contextlib.AbstractContextManager[Component]:
        """Plays the pods of simulated nodes. Only a control plane of our own leaves silent nodes alone."""
        return kwok(self.kubeconfig, self.folder, heartbeats=self.plane is None, say=say)


def given_kubeconfig() -> Path | None:
    """The first file of KUBECONFIG."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else None


def needed_programs() -> tuple[str, ...]:
    """What `open_cluster` and simulated nodes need here."""
    return ("kubectl", "kwok") if given_kubeconfig() else (*PROGRAMS, "kwok")


@contextlib.contextmanager
def open_cluster(folder: Path, settings: Settings | None = None, say: Say = say_on_stderr) -> Iterator[Cluster]:
    """`settings`: of a control plane of our own."""
    given = given_kubeconfig()
    if given is not None:
        yield Cluster(given, Kubectl(binary("kubectl", say=say), given), folder)
        return
    with ControlPlane(settings, folder, say) as plane:
        yield Cluster(plane.kubeconfig, plane.kubectl, folder, plane)


@contextlib.contextmanager
def fresh_namespace(kubectl: Kubectl, labels: Mapping[str, str] | None = None, prefix: str = "test") -> Iterator[str]:
    """Ready when its default service account is, without which no pod can be made. Deleted at the end, in the back."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
    try:
        _await_service_account(kubectl.within(name))
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def _await_service_account(kubectl: Kubectl) -> None:
    deadline = time.monotonic() + NAMESPACE_SECONDS
    while True:
        try:
            kubectl("get", "serviceaccount", "default")
            return
        except KubectlError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
