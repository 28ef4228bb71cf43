"""The nodes themselves, before the operator comes: pods in the project's images run, talk, share, and are lost."""

from __future__ import annotations

import json
import time
import uuid

import pytest

from clusterkit.kubectl import Kubectl
from clusterkit.pods import await_phase, finish, python_pod
from clusterkit.real_cluster import RealCluster
from clusterkit.real_nodes import RealNodes

LOST_SECONDS = 90.0

HARMLESS = """
import os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print("user", os.getuid(), "capabilities", int(status["CapEff"], 16), "seccomp", status["Seccomp"].strip())
try:
    open("/opt/written", "w")
except OSError as error:
    print(error.strerror)
sys.exit(7)
"""


@pytest.mark.parametrize("image", ["operator_image", "worker_image"])
def test_a_restricted_pod_runs_and_its_exit_code_and_output_come_back(
    kubectl: Kubectl, real_cluster: RealCluster, image: str
) -> None:
    code, said = finish(kubectl, python_pod("harmless", getattr(real_cluster, image), HARMLESS))
    assert code == 7
    assert said.splitlines() == ["user 65532 capabilities 0 seccomp 2", "Read-only file system"]


LISTEN = """
import socket
with socket.create_server(("", 8471)) as server:
    connection, _ = server.accept()
    with connection:
        connection.sendall(connection.recv(100)[::-1])
"""
CALL = """
import socket
with socket.create_connection(("{address}", 8471), timeout=30) as connection:
    connection.sendall(b"ring")
    print(connection.recv(100).decode(), connection.getsockname()[0])
"""


def test_pods_on_two_nodes_reach_each_other(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    image, (here, there, *_) = real_cluster.operator_image, real_cluster.node_names()
    kubectl.create(python_pod("listener", image, LISTEN, node=here))
    listener = await_phase(kubectl, "listener", "Running")
    code, said = finish(
        kubectl, python_pod("caller", image, CALL.format(address=listener["status"]["podIP"]), node=there)
    )
    caller = kubectl.json("get", "pod", "caller")
    assert (code, said.split()) == (0, ["gnir", caller["status"]["podIP"]])
    assert {listener["spec"]["nodeName"], caller["spec"]["nodeName"]} == {here, there}


ASK_SERVER = """
import json, os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
url = "https://" + os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
request = urllib.request.Request(
    url + "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    headers={"Authorization": "Bearer " + open(account + "/token").read(), "Content-Type": "application/json"},
)
trusted = ssl.create_default_context(cafile=account + "/ca.crt")
with urllib.request.urlopen(request, context=trusted, timeout=30) as answer:
    print(json.load(answer)["status"]["userInfo"]["username"])
"""


def test_a_pod_reaches_the_api_server_by_its_service_as_its_own_account(
    kubectl: Kubectl, real_cluster: RealCluster
) -> None:
    pod = python_pod("asks", real_cluster.operator_image, ASK_SERVER)
    pod["spec"]["automountServiceAccountToken"] = True
    code, said = finish(kubectl, pod)
    assert (code, said.strip()) == (0, f"system:serviceaccount:{kubectl.namespace}:default")


COMPUTE = """
import torch, ring_worker.agent, ring_worker.attention
from torch import distributed
matrix = torch.arange(9.0).reshape(3, 3)
print(float((matrix @ matrix).trace()), distributed.is_gloo_available(), torch.version.cuda is not None)
"""


def test_torch_computes_in_the_workers_image(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    code, said = finish(kubectl, python_pod("computes", real_cluster.worker_image, COMPUTE))
    assert (code, said.split()) == (0, ["180.0", "True", "True"])


COMPILE = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", "", -1, 0};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
'''
print(compile_module_from_src(source, "launcher").__name__)
"""


def test_triton_can_compile_its_launcher_in_the_workers_image(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    """It does so with a C compiler and Python's headers when the first kernel runs, which needs a GPU."""
    pod = python_pod("compiles", real_cluster.worker_image, COMPILE)
    code, said = finish(kubectl, pod)
    assert (code, said.split()) == (0, ["launcher"])


NO_TORCH = """
import importlib.util, kopf, kubernetes, ring_operator.cli
print([name for name in ("torch", "triton", "numpy", "pip") if importlib.util.find_spec(name)])
"""


def test_the_operators_image_has_no_torch(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    code, said = finish(kubectl, python_pod("small", real_cluster.operator_image, NO_TORCH))
    assert (code, said.strip()) == (0, "[]")


def test_what_the_operators_image_starts_is_the_operator(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    pod = python_pod("operator", real_cluster.operator_image, "")
    [container] = pod["spec"]["containers"]
    del container["command"]
    container["args"] = ["--help"]
    code, said = finish(kubectl, pod)
    assert (code, said.split()[:4]) == (0, ["usage:", "python", "-m", "ring_operator"])


SHARE = """
from pathlib import Path
folder = Path("/storage")
print(sorted(path.name for path in folder.iterdir()))
(folder / "{name}").write_text("written on {node}")
"""


def test_a_volume_is_shared_by_pods_of_both_nodes(kubectl: Kubectl, real_cluster: RealCluster) -> None:
    assert kubectl.namespace is not None
    kubectl.apply(*real_cluster.shared_volume(kubectl.namespace, "storage"))
    claim = ("storage", "/storage", {"persistentVolumeClaim": {"claimName": "storage"}})
    mark, seen = uuid.uuid4().hex, []
    for index, node in enumerate(real_cluster.node_names()[:2]):
        program = SHARE.format(name=f"{mark}-{index}", node=node)
        pod = python_pod(f"writer-{index}", real_cluster.operator_image, program, node=node, volumes=[claim])
        code, said = finish(kubectl, pod)
        assert code == 0, said
        seen.append(f"{mark}-0" in said)
    assert seen == [False, True]


AWAIT_CHANGE = """
import time
from pathlib import Path
deadline = time.monotonic() + 60
print(Path("/etc/order/value").read_text(), flush=True)
while (text := Path("/etc/order/value").read_text()) != "second" and time.monotonic() < deadline:
    time.sleep(0.02)
print(text, time.time())
"""


def test_a_config_map_changed_together_with_an_annotation_is_in_the_pod_at_once(
    kubectl: Kubectl, real_cluster: RealCluster
) -> None:
    """Without the annotation a kubelet looks once a minute, and the pod would have given up."""
    order = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "order"}, "data": {"value": "first"}}
    kubectl.create(order)
    mounted = ("order", "/etc/order", {"configMap": {"name": "order"}})
    kubectl.create(python_pod("reader", real_cluster.operator_image, AWAIT_CHANGE, volumes=[mounted]))
    await_phase(kubectl, "reader", "Running")
    deadline = time.monotonic() + 30
    while "first" not in kubectl("logs", "reader") and time.monotonic() < deadline:
        time.sleep(0.2)
    kubectl("patch", "configmap", "order", "--patch", json.dumps({"data": {"value": "second"}}))
    kubectl("annotate", "pod", "reader", "epoch=2")
    await_phase(kubectl, "reader", "Succeeded", "Failed")
    assert [line.split()[0] for line in kubectl("logs", "reader").splitlines()] == ["first", "second"]


SLEEP = "import time\ntime.sleep(600)"


def test_a_killed_node_is_lost_and_comes_back(
    kubectl: Kubectl, real_cluster: RealCluster, own_nodes: RealNodes
) -> None:
    stays, lost = own_nodes.nodes[:2]
    kubectl.create(python_pod("sleeper", real_cluster.operator_image, SLEEP, node=lost.name))
    await_phase(kubectl, "sleeper", "Running")
    lost.kill()
    try:
        own_nodes.wait_lost(lost.name, LOST_SECONDS)
        assert stays.name in own_nodes.ready_nodes()
    finally:
        lost.start()
    own_nodes.wait_ready()
    await_phase(kubectl, "sleeper", "Failed")  # what ran there when it was lost does not run again
    assert finish(kubectl, python_pod("after", real_cluster.operator_image, HARMLESS, node=lost.name))[0] == 7
