"""Small pods for tests of nodes: a line of Python under the rules of Pod Security `restricted`.

In: an image and a program. Out: manifests (pure), and what became of a pod.
"""

from __future__ import annotations

import time
from typing import Any

from clusterkit.kubectl import Kubectl

Manifest = dict[str, Any]
USER = 65532
SECONDS = 180.0  # a busy machine imports torch in half a minute

_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class PodError(Exception):
    """A pod did not come to where the test waited for it; the text says where it is."""


def python_pod(name: str, image: str, program: str, *, node: str | None = None, volumes: Any = ()) -> Manifest:
    """`volumes`: (name, mount path, source) each, beside a /tmp."""
    mounted = [("tmp", "/tmp", {"emptyDir": {}}), *volumes]
    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", program],
        "securityContext": _SECURITY,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path, _ in mounted],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": _POD_SECURITY,
        "containers": [container],
        "volumes": [{"name": volume, **source} for volume, _, source in mounted],
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def await_phase(kubectl: Kubectl, name: str, *phases: str, seconds: float = SECONDS) -> Manifest:
    """The pod, once it is in one of them. Raises PodError."""
    deadline = time.monotonic() + seconds
    while True:
        pod = kubectl.json("get", "pod", name)
        if pod["status"].get("phase") in phases:
            return pod
        if time.monotonic() > deadline:
            raise PodError(f"{name} is not {' or '.join(phases)}:\n{kubectl('describe', 'pod', name)}")
        time.sleep(0.3)


def exit_code(pod: Manifest) -> int:
    [container] = pod["status"]["containerStatuses"]
    return int(container["state"]["terminated"]["exitCode"])


def finish(kubectl: Kubectl, pod: Manifest) -> tuple[int, str]:
    """Create it, wait for its end: exit code and what it printed."""
    kubectl.create(pod)
    name = pod["metadata"]["name"]
    ended = await_phase(kubectl, name, "Succeeded", "Failed")
    return exit_code(ended), kubectl("logs", name)
