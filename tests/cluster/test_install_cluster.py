"""`kubectl apply -k manifests` on a real API server: what it makes, and who may do what afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from clusterkit.cluster import Cluster, fresh_namespace
from clusterkit.install import MANIFESTS, await_crd
from clusterkit.kubectl import Kubectl
from job_manifests import job, raw
from processes import wait_until
from ring_operator import names
from ring_operator.plan import machines_of, plan
from ring_operator.render import cluster_place, render

SYSTEM = "ring-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Kubectl]:
    """Client-side, as people do: that keeps the whole manifest in an annotation, which has a limit.

    All of it stays but the Deployment: other tests run the operator themselves.
    """
    cluster.kubectl("apply", "--kustomize", str(MANIFESTS))
    await_crd(cluster.kubectl)
    yield cluster.kubectl
    cluster.kubectl("delete", "--kustomize", str(MANIFESTS / "operator"), "--wait=false")


@pytest.fixture(scope="module")
def where(installed: Kubectl) -> Iterator[str]:
    with fresh_namespace(installed, RESTRICTED) as name:
        yield name


@pytest.fixture(scope="module")
def operator(cluster: Cluster, installed: Kubectl, where: str) -> Kubectl:
    """kubectl as the operator's own service account."""
    return installed.within(where).acting_as(cluster.as_service_account(SYSTEM, names.MANAGER))


def may(kubectl: Kubectl, verb: str, resource: str, subresource: str = "", name: str = "") -> bool:
    """`resource` with its group behind a dot. In the namespace of `kubectl`."""
    plural, _, group = resource.partition(".")
    asked = {"namespace": kubectl.namespace, "verb": verb, "group": group, "resource": plural}
    asked |= {"subresource": subresource, "name": name}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    body = json.dumps({**review, "spec": {"resourceAttributes": asked}})
    said = json.loads(kubectl("create", "--validate=false", "--filename=-", "--output=json", stdin=body))
    return bool(said["status"]["allowed"])


def test_pod_security_lets_the_operators_pods_in(installed: Kubectl):
    system = installed.within(SYSTEM)
    wait_until(lambda: len(system.json("get", "pods")["items"]) == 2, 30, "both replicas are created")
    assert system.json("get", "poddisruptionbudget", names.MANAGER)["spec"]["maxUnavailable"] == 1


def test_applying_it_again_would_change_nothing(installed: Kubectl):
    assert installed("diff", "--kustomize", str(MANIFESTS)) == ""


@pytest.mark.parametrize(
    "verb, resource, subresource",
    [
        ("get", "secrets", ""),
        ("list", "secrets", ""),
        ("create", "pods", "exec"),
        ("get", "pods", "log"),
        ("create", "serviceaccounts", "token"),
        ("create", "deployments.apps", ""),
        ("update", "nodes", ""),
        ("create", f"{names.PLURAL}.{names.GROUP}", ""),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
        ("update", "customresourcedefinitions.apiextensions.k8s.io", ""),
        ("create", "leases.coordination.k8s.io", ""),
    ],
)
def test_what_the_operator_may_not(operator: Kubectl, verb: str, resource: str, subresource: str):
    assert not may(operator, verb, resource, subresource)


def test_the_operator_has_its_lease_at_home_alone(operator: Kubectl):
    at_home = operator.within(SYSTEM)
    assert may(at_home, "create", "leases.coordination.k8s.io")
    assert may(at_home, "update", "leases.coordination.k8s.io", name=names.MANAGER)
    assert not may(at_home, "update", "leases.coordination.k8s.io", name="another")


def test_the_operator_can_make_all_that_a_job_needs_where_pods_are_restricted(
    installed: Kubectl, operator: Kubectl, where: str
):
    installed.within(where).create(raw({"metadata.name": "tiny", "workers.disruptionBudget": True}))
    uid = installed.within(where).json("get", "rtj", "tiny")["metadata"]["uid"]
    work = job({"workers.disruptionBudget": True})
    made = render(work, plan(work, machines_of(work.spec)), cluster_place(work, uid, "worker:1"))
    operator.apply(*made.children)
    operator.create(*made.pods)
    patch = yaml.safe_dump({"status": {"state": "Running"}})
    operator("patch", "rtj", "tiny", "--subresource=status", "--type=merge", f"--patch={patch}")
    budget = operator.json("get", "poddisruptionbudget", names.disruption_budget("tiny"))
    assert budget["spec"]["minAvailable"] == 1
    operator("delete", "rtj", "tiny", "--wait=false")
    wait_until(lambda: not operator.json("get", "pods,configmaps", f"--selector={names.LABEL_JOB}=tiny")["items"], 30,
               "what belongs to the job goes with it")  # fmt: skip


@pytest.mark.parametrize("role, writes", [("edit", True), ("view", False)])
def test_people_get_the_jobs_with_their_namespace(
    cluster: Cluster, installed: Kubectl, where: str, role: str, writes: bool
):
    kubectl = installed.within(where)
    kubectl("create", "serviceaccount", role)
    kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount={where}:{role}")
    person = kubectl.acting_as(cluster.as_service_account(where, role))
    resource = f"{names.PLURAL}.{names.GROUP}"
    wait_until(lambda: may(person, "get", resource), 20, "the roles are aggregated")
    assert may(person, "create", resource) == writes
    assert not may(person, "patch", resource, "status")
