"""The harness itself: what a test may rely on when it runs on this control plane."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterkit.cluster import Cluster, fresh_namespace
from clusterkit.commands import Settings
from clusterkit.component import ComponentError
from clusterkit.control_plane import ControlPlane, answers
from clusterkit.kubectl import Kubectl, KubectlError
from processes import alive, command_line, wait_until

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def test_the_api_serves(cluster: Cluster):
    assert "kubernetes" in cluster.kubectl("get", "services", "--namespace=default", "--output=name")


def test_an_account_without_a_role_may_nothing(cluster: Cluster, kubectl: Kubectl, namespace: str):
    bare = kubectl.acting_as(cluster.as_service_account(namespace, "default"))
    with pytest.raises(KubectlError, match=f'"system:serviceaccount:{namespace}:default" cannot list .*"pods"'):
        bare("get", "pods")
    kubectl("create", "rolebinding", "may-view", "--clusterrole=view", f"--serviceaccount={namespace}:default")
    wait_until(lambda: _works(bare, "get", "pods"), 10, "the role binding holds")
    with pytest.raises(KubectlError, match="secrets"):
        bare("get", "secrets")


def test_a_user_is_who_the_certificate_says(plane: ControlPlane, kubectl: Kubectl):
    jane = kubectl.acting_as(plane.kubeconfig_for("jane", ["guests"]))
    assert "jane" in jane("auth", "whoami")
    with pytest.raises(KubectlError, match='User "jane" cannot list'):
        jane("get", "pods")


def test_clients_verify_the_server(plane: ControlPlane):
    import ssl

    stranger = ssl.create_default_context()
    assert plane.apiserver.alive
    assert not answers(f"{plane.server}/readyz", stranger)()


def test_pod_security_refuses_what_is_not_restricted(cluster: Cluster):
    with fresh_namespace(cluster.kubectl, RESTRICTED) as name:
        within = cluster.kubectl.within(name)
        with pytest.raises(KubectlError, match=r'violates PodSecurity "restricted.*privileged'):
            within.create(_pod("bad", {"privileged": True}))
        within.create(_pod("good", _HARMLESS))


def test_a_node_may_not_touch_another(plane: ControlPlane, kubectl: Kubectl):
    kubectl.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}})
    node = kubectl.acting_as(plane.kubeconfig_for("system:node:mine", ["system:nodes"]))
    with pytest.raises(KubectlError, match=r"mine.* (is not allowed|cannot)"):
        node("label", "node", "other", "stolen=yes")
    kubectl("delete", "node", "other")


def test_the_audit_log_tells_who_asked_for_what(
    plane: ControlPlane, cluster: Cluster, kubectl: Kubectl, namespace: str
):
    account = kubectl.acting_as(cluster.as_service_account(namespace, "default"))
    with pytest.raises(KubectlError):
        account("get", "pods")
    asked = plane.audit(f"system:serviceaccount:{namespace}:default")
    (entry,) = [e for e in asked if e["verb"] == "list" and e.get("objectRef", {}).get("resource") == "pods"]
    assert entry["responseStatus"]["code"] == 403


def test_endpoint_controllers_are_off(plane: ControlPlane, kubectl: Kubectl):
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    kubectl.create({**service, "spec": {"selector": {"app": "s"}, "ports": [{"port": 80}]}})
    kubectl("wait", "service/s", "--for=jsonpath={.spec.clusterIP}", "--timeout=10s")
    assert kubectl.json("get", "endpointslices")["items"] == []


def test_a_frozen_etcd_stops_writes_until_it_thaws(plane: ControlPlane, kubectl: Kubectl):
    plane.etcd.pause()
    try:
        with pytest.raises(KubectlError):
            kubectl("create", "configmap", "late", "--request-timeout=2s")
    finally:
        plane.etcd.resume()
    wait_until(lambda: _works(kubectl, "create", "configmap", "after"), 60, "writes work again")


def test_a_restarted_api_server_has_the_same_data_on_the_same_port(plane: ControlPlane, kubectl: Kubectl):
    kubectl("create", "configmap", "kept", "--from-literal=a=1")
    before = plane.apiserver.pid
    plane.apiserver.restart()
    assert plane.apiserver.pid != before
    assert kubectl.json("get", "configmap", "kept")["data"] == {"a": "1"}


def test_every_part_can_be_restarted(plane: ControlPlane, cluster: Cluster):
    for part in plane.components:
        part.restart()
    with fresh_namespace(cluster.kubectl) as name:  # the controllers have made its service account
        cluster.kubectl.within(name)("get", "serviceaccount", "default")


def test_a_part_that_does_not_start_shows_why(tmp_path: Path):
    wrong = Settings(extra={"kube-apiserver": ("--no-such-flag",)})
    with pytest.raises(ComponentError, match=r"kube-apiserver ended with exit code 1(.|\n)*no-such-flag"):
        ControlPlane(wrong, tmp_path).__enter__()
    assert not _running_in(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals, tmp_path: Path, cluster: Cluster):
    """Also where its owner is killed at once, with a part of it frozen. The session's own goes on beside it."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 4
        assert all(str(tmp_path) in command_line(pid) for pid in pids)
        owner.send_signal(number)
        owner.wait(60)
    finally:
        owner.kill()
    wait_until(lambda: not any(map(alive, pids)), 30, "the programs are gone")
    if number == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []


_OWNER = """
import time
from clusterkit.control_plane import ControlPlane
with ControlPlane() as plane:
    plane.etcd.pause()
    print(*(component.pid for component in plane.components), flush=True)
    time.sleep(600)
"""

_HARMLESS = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _pod(name: str, security: dict[str, object]) -> dict[str, object]:
    container = {"name": "c", "image": "none", "securityContext": security}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def _works(kubectl: Kubectl, *arguments: str) -> bool:
    try:
        kubectl(*arguments)
    except KubectlError:
        return False
    return True


def _running_in(folder: Path) -> list[str]:
    commands = [command_line(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [command for command in commands if str(folder) in command]
