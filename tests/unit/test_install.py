"""The manifests to install: what the operator may do, how its pods are confined, and that nothing is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from job_manifests import STORAGE, job
from ring_operator import names
from ring_operator.__main__ import parser
from ring_operator.cluster.stores import CHILDREN
from ring_operator.plan import machines_of, plan
from ring_operator.render import cluster_place, render

MANIFESTS = Path(__file__).parents[2] / "manifests"
FOLDERS = [MANIFESTS, *(MANIFESTS / name for name in ("crd", "rbac", "operator"))]
OBJECTS = [
    document
    for folder in FOLDERS[1:]
    for path in sorted(folder.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] != "Kustomization"
]


def only(kind: str, name: str = "ring-training-operator") -> dict[str, Any]:
    (found,) = [o for o in OBJECTS if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def allowed(role: dict[str, Any]) -> dict[str, set[str]]:
    """Verbs by resource, as `group/resource`."""
    rows = [
        (f"{group}/{resource}".lstrip("/"), set(rule["verbs"]))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    return {resource: set().union(*(verbs for r, verbs in rows if r == resource)) for resource, _ in rows}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_kustomization_names_all_there_is(folder):
    named = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"])
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert named == (files if folder != MANIFESTS else {"crd", "rbac", "operator"})


ROLES = [o for o in OBJECTS if o["kind"] in ("Role", "ClusterRole")]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: f"{role['kind']} {role['metadata']['name']}")
def test_no_role_has_a_wildcard_or_reaches_for_what_is_not_needed(role):
    for resource, verbs in allowed(role).items():
        assert "*" not in resource
        assert not verbs & {"*", "bind", "escalate", "impersonate"}
        assert resource.split("/")[-1] not in ("secrets", "exec", "attach", "portforward", "proxy", "serviceaccounts")


def test_the_operator_may_do_what_it_does():
    may = allowed(only("ClusterRole"))
    kinds = {"Pod": "pods", "ConfigMap": "configmaps", "Service": "services"} | {
        "NetworkPolicy": "networking.k8s.io/networkpolicies",
        "PodDisruptionBudget": "policy/poddisruptionbudgets",
    }
    for kind in ("Pod", *CHILDREN):
        assert {"list", "watch", "create", "patch"} <= may[kinds[kind]]
    work = job({"workers": {"nodes": 2, "volumes": [STORAGE], "disruptionBudget": True}, "training.batch": 2})
    made = render(work, plan(work, machines_of(work.spec, gpus_per_node=1)), cluster_place(work, "uid", "image"))
    assert {child["kind"] for child in (*made.children, *made.pods)} == kinds.keys()
    assert may["ringtraining.dev/ringtrainingjobs/status"] == {"get", "patch"}
    assert may["ringtraining.dev/ringtrainingjobs/finalizers"] == {"update"}
    assert may["nodes"] == {"get", "list", "watch"}


def test_the_lease_is_in_the_operators_own_namespace_alone():
    assert "coordination.k8s.io/leases" not in allowed(only("ClusterRole"))
    assert allowed(only("Role")) == {"coordination.k8s.io/leases": {"get", "create", "update", "patch"}}
    assert only("Role")["metadata"]["namespace"] == "ring-system"
    named = [rule["resourceNames"] for rule in only("Role")["rules"] if "create" not in rule["verbs"]]
    assert named == [[names.MANAGER]]


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRoleBinding"])
def test_the_roles_are_bound_to_the_account_of_the_operators_pods(kind):
    binding = only(kind)
    assert binding["roleRef"]["name"] == only(kind.removesuffix("Binding"))["metadata"]["name"]
    account = only("ServiceAccount")["metadata"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]
    assert pod_spec()["serviceAccountName"] == account["name"]


def pod_spec() -> dict[str, Any]:
    return dict(only("Deployment")["spec"]["template"]["spec"])


def test_the_operators_pods_obey_the_restricted_profile_that_their_namespace_asks_for():
    assert only("Namespace", "ring-system")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = pod_spec()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


def test_the_command_line_of_the_deployment_is_one_that_the_operator_takes():
    (container,) = pod_spec()["containers"]
    assert container["command"] == ["python", "-m", "ring_operator"]
    options = parser().parse_args(container["args"])
    assert options.worker_image
    assert {port["containerPort"] for port in container["ports"]} == {options.port}
    assert [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")] == [
        "/healthz",
        "/readyz",
    ]
    assert {variable["name"] for variable in container["env"]} == {"POD_NAME", "POD_NAMESPACE"}


def test_two_replicas_apart_and_one_of_them_always_there():
    deployment = only("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] == 2
    assert deployment["selector"]["matchLabels"] == labels == {names.LABEL_NAME: names.MANAGER}
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [s["topologyKey"] for s in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    budget = only("PodDisruptionBudget")["spec"]
    assert (budget["selector"]["matchLabels"], budget["maxUnavailable"]) == (labels, 1)


def test_people_who_may_edit_or_view_a_namespace_may_do_so_with_its_jobs():
    edit, view = only("ClusterRole", "ring-training-jobs-edit"), only("ClusterRole", "ring-training-jobs-view")
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert not any(verbs - {"get", "list", "watch"} for verbs in allowed(view).values())
    assert allowed(edit)["ringtraining.dev/ringtrainingjobs/status"] == {"get"}


def test_everything_carries_the_name_of_the_application():
    assert {o["metadata"]["labels"][names.LABEL_NAME] for o in OBJECTS} == {names.MANAGER}
