"""Fixtures of the tests on a real control plane: one for the session, or the cluster that KUBECONFIG names.

What has to be built is built after the collection, where no test's time limit runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterkit import nodes
from clusterkit.binaries import BuildError, binary
from clusterkit.cluster import Cluster, fresh_namespace, needed_programs, open_cluster
from clusterkit.commands import Settings
from clusterkit.component import Component
from clusterkit.control_plane import ControlPlane
from clusterkit.dry_run import DryRun
from clusterkit.fake_agents import FakeAgents
from clusterkit.fake_job import Course
from clusterkit.install import install, install_crd
from clusterkit.jobs import CLAIM, VOLUME, Jobs
from clusterkit.kubectl import Kubectl
from clusterkit.nodes import Grid, Machine
from clusterkit.operator_process import running_operator
from clusterkit.progress import say_on_stderr

HERE = Path(__file__).parent
NOT_OURS = "KUBECONFIG is set, and this needs a control plane of its own"
_missing = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is not in the cache, and show it."""
    if session.config.option.collectonly or not any(HERE in item.path.parents for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    try:
        with shown:
            for name in needed_programs():
                binary(name, say=say_on_stderr)
    except BuildError as error:
        session.config.stash[_missing] = str(error)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Pods on simulated nodes have loopback addresses, so its endpoint controllers are off."""
    if sys.platform != "linux":
        pytest.skip("the control plane of the tests runs on Linux only; set KUBECONFIG to use another cluster")
    if reason := pytestconfig.stash.get(_missing, ""):
        pytest.skip(reason)
    with open_cluster(tmp_path_factory.mktemp("cluster"), Settings(endpoint_slices=False)) as opened:
        yield opened


@pytest.fixture(scope="session")
def plane(cluster: Cluster) -> ControlPlane:
    """For tests that kill, freeze or look into its parts."""
    if cluster.plane is None:
        pytest.skip(NOT_OURS)
    return cluster.plane


@pytest.fixture(scope="session")
def kwok(cluster: Cluster) -> Iterator[Component]:
    """Plays the pods of nodes made by `clusterkit.nodes`."""
    with cluster.kwok() as component:
        yield component


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new one."""
    with fresh_namespace(cluster.kubectl) as name:
        yield name


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """In the test's namespace."""
    return cluster.kubectl.within(namespace)


@pytest.fixture(scope="session")
def crd(cluster: Cluster) -> Kubectl:
    """An administrator, where RingTrainingJobs are known."""
    install_crd(cluster.kubectl)
    return cluster.kubectl


@pytest.fixture(scope="session")
def dry_run_namespace(crd: Kubectl) -> Iterator[str]:
    """Jobs in it are looked after by nobody."""
    with fresh_namespace(crd, prefix="dry-run") as name:
        yield name


@pytest.fixture(scope="session")
def dry_run(cluster: Cluster, dry_run_namespace: str) -> Iterator[DryRun]:
    with DryRun(cluster.kubeconfig, dry_run_namespace) as asked:
        yield asked


@pytest.fixture(scope="session")
def ready_nodes(cluster: Cluster, kwok: Component) -> Iterator[list[str]]:
    there = nodes.grid(Grid(racks=2, nodes=4), Machine(gpus=0), prefix="worker")
    nodes.create(cluster.kubeconfig, there)
    names = [node["metadata"]["name"] for node in there]
    yield names
    nodes.delete(cluster.kubeconfig, names)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Path:
    """A kubeconfig of the operator's service account."""
    install(cluster.kubectl)
    return cluster.as_service_account("ring-system", "ring-training-operator")


@pytest.fixture(scope="session")
def agents(cluster: Cluster) -> Iterator[FakeAgents]:
    with FakeAgents(cluster.kubeconfig, Course(step_seconds=0.2)) as running:
        yield running


@pytest.fixture
def operator(installed: Path, ready_nodes: list[str], tmp_path: Path) -> Iterator[Component]:
    with running_operator(installed, tmp_path) as component:
        yield component


@pytest.fixture
def jobs(kubectl: Kubectl, agents: FakeAgents, namespace: str) -> Jobs:
    claim = {**CLAIM, "spec": {**CLAIM["spec"], "volumeName": namespace, "storageClassName": ""}}
    kubectl.create({**VOLUME, "metadata": {"name": namespace}}, claim)
    return Jobs(kubectl, agents, namespace)
