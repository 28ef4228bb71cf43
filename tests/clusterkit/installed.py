"""Everything that `kubectl apply -k manifests` installs, with the images under test: the operator is a pod."""

from __future__ import annotations

import time

import yaml

from clusterkit.install import MANIFESTS
from clusterkit.kubectl import Kubectl

NAMESPACE = "ring-system"
NAME = "ring-training-operator"
SECONDS = 240.0


def install_all(kubectl: Kubectl, operator_image: str, worker_image: str) -> None:
    """When this returns, both replicas are ready."""
    documents = list(yaml.safe_load_all(kubectl("kustomize", str(MANIFESTS))))
    for document in documents:
        if document["kind"] == "Deployment":
            container = document["spec"]["template"]["spec"]["containers"][0]
            container |= {"image": operator_image, "imagePullPolicy": "IfNotPresent"}
            container["args"][0] = f"--worker-image={worker_image}"
    first = [d for d in documents if d["kind"] in ("Namespace", "CustomResourceDefinition")]
    kubectl.apply(*first)
    kubectl("wait", "--for=condition=Established", "crd/ringtrainingjobs.ringtraining.dev", "--timeout=60s")
    kubectl.apply(*(d for d in documents if d not in first))
    await_operator(kubectl)


def await_operator(kubectl: Kubectl) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        status = kubectl.json("-n", NAMESPACE, "get", "deployment", NAME)["status"]
        if status.get("readyReplicas", 0) >= 2:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"no two replicas:\n{kubectl('-n', NAMESPACE, 'describe', 'pods')}")
        time.sleep(1)


def leader(kubectl: Kubectl) -> str:
    """The pod that holds the lease."""
    return str(kubectl.json("-n", NAMESPACE, "get", "lease", NAME)["spec"]["holderIdentity"])
