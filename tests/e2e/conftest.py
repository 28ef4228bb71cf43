"""Fixtures of the tests on real nodes: one cluster for the session, or the one that KUBECONFIG names.

What has to be built (programs, images: minutes, once) is built after the collection, where no test's time limit runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterkit.binaries import BuildError
from clusterkit.cluster import fresh_namespace, given_kubeconfig
from clusterkit.component import ComponentError
from clusterkit.host import HostError
from clusterkit.kubectl import Kubectl
from clusterkit.progress import CommandError
from clusterkit.real_cluster import RealCluster, open_real_cluster
from clusterkit.real_node import NodeError
from clusterkit.real_nodes import Prepared, RealNodes, prepare

HERE = Path(__file__).parent
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_prepared = pytest.StashKey[Prepared | Exception]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is not in the cache, and show it."""
    ours = any(HERE in item.path.parents for item in session.items)
    if session.config.option.collectonly or not ours or given_kubeconfig():
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            session.config.stash[_prepared] = prepare()
    except (HostError, BuildError, CommandError, NodeError, ComponentError) as error:
        session.config.stash[_prepared] = error


@pytest.fixture(scope="session")
def real_cluster(pytestconfig: pytest.Config) -> Iterator[RealCluster]:
    prepared = pytestconfig.stash.get(_prepared, None)
    if isinstance(prepared, (HostError, BuildError)):
        pytest.skip(str(prepared))
    if isinstance(prepared, Exception):
        pytest.fail(str(prepared), pytrace=False)
    with open_real_cluster(prepared) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def own_nodes(real_cluster: RealCluster) -> RealNodes:
    """For tests that kill them."""
    if real_cluster.own is None:
        pytest.skip("KUBECONFIG is set, and this needs nodes of its own")
    return real_cluster.own


@pytest.fixture
def namespace(real_cluster: RealCluster) -> Iterator[str]:
    """A new one, in which Pod Security enforces `restricted`."""
    with fresh_namespace(real_cluster.kubectl, RESTRICTED, prefix="e2e") as name:
        yield name


@pytest.fixture
def kubectl(real_cluster: RealCluster, namespace: str) -> Kubectl:
    """In the test's namespace."""
    return real_cluster.kubectl.within(namespace)
