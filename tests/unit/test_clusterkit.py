"""The pure parts of the test cluster: what is built from what, certificates, nodes, how fake agents behave."""

from __future__ import annotations

import ipaddress

import pytest

from clusterkit import commands, sources
from clusterkit.certificates import certificate_request
from clusterkit.commands import Settings
from clusterkit.fake_job import Course, FakeJob
from clusterkit.nodes import AWS, Grid, Machine, grid, node, taint
from ring_worker.contract import AgentState, Degrees, Master, Member, RankTable

GO_MOD = """module k8s.io/kubernetes

go 1.26.0

require example.com/thing v1.2.3

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/kubelet => ./staging/src/k8s.io/kubelet
)
"""


def test_staged_modules_are_replaced_by_the_published_ones():
    made = sources.go_mod(sources.kubernetes("v1.36.3"), GO_MOD)
    assert made.splitlines() == [
        "module tools",
        "",
        "go 1.26.0",
        "",
        "require k8s.io/kubernetes v1.36.3",
        "",
        "replace k8s.io/api => k8s.io/api v0.36.3",
        "replace k8s.io/kubelet => k8s.io/kubelet v0.36.3",
    ]


@pytest.mark.parametrize("wanted", ["1.36", "1.36.3", "v1.36.3"])
def test_a_kubernetes_version_has_short_names(wanted):
    program = sources.program("kubelet", wanted)
    assert program.source.label == "kubernetes-v1.36.3"
    assert "gitVersion=v1.36.3" in program.link_flags
    assert "gitMinor=36" in program.link_flags


def test_other_programs_have_versions_of_their_own():
    assert sources.program("etcd", "1.36") == sources.program("etcd", "1.37")


@pytest.mark.parametrize("name, version, says", [("kubeadm", "1.37", "kubeadm"), ("kubelet", "1.12", "1.37, 1.36")])
def test_what_is_not_known_is_named(name, version, says):
    with pytest.raises(ValueError, match=says):
        sources.program(name, version)


def test_every_program_has_one_source():
    names = [*sources.CONTROL_PLANE, *sources.REAL_NODES, "helm"]
    assert [sources.program(name).name for name in names] == names


def test_a_certificate_names_its_user_and_groups():
    request = certificate_request("system:node:a", ["system:nodes", "more"], ["keyUsage=critical,digitalSignature"])
    assert "0.O = system:nodes\n1.O = more\nCN = system:node:a\n" in request


def test_the_servers_certificate_is_good_for_pods_and_for_tests():
    hosts = Settings(address="10.244.0.1", service_cidr="10.97.0.0/16").hosts
    assert {"10.244.0.1", "127.0.0.1", "10.97.0.1", "kubernetes.default.svc"} <= set(hosts)


def test_endpoint_controllers_can_be_switched_off():
    ports = commands.Ports(1, 2, 3, 4, 5)
    files = _files()
    with_them = commands.controller_manager(Settings(), ports, files)
    without = commands.controller_manager(Settings(endpoint_slices=False), ports, files)
    assert "--controllers=*,-ttl-controller" in with_them
    assert any(
        flag.startswith("--controllers=*,-ttl-controller,-endpoints-controller,-endpointslice-controller")
        for flag in without
    )


def test_a_grid_has_every_place_once_and_says_where_it_is():
    nodes = grid(Grid(zones=2, spines=2, racks=3, nodes=4, nvlink=2))
    labels = [manifest["metadata"]["labels"] for manifest in nodes]
    assert len(nodes) == 48
    assert len({label["kubernetes.io/hostname"] for label in labels}) == 48
    assert len({label["fabric.topograph.run/tier-0"] for label in labels}) == 12
    assert len({label["fabric.topograph.run/tier-1"] for label in labels}) == 4
    assert len({label["nvidia.com/gpu.clique"] for label in labels}) == 24
    addresses = {manifest["status"]["addresses"][0]["address"] for manifest in nodes}
    assert len(addresses) == 48
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses)


def test_a_grid_uses_the_labels_it_is_given():
    labels = grid(Grid(racks=1, nodes=1, labels=AWS))[0]["metadata"]["labels"]
    assert labels["topology.k8s.aws/network-node-layer-3"] == "rack-0-0-0"
    assert "nvidia.com/gpu.clique" not in labels


def test_a_node_has_what_its_machine_has():
    made = node("n", machine=Machine(gpus=0, cpu="2"), taints=[taint("sick", effect="NoExecute")])
    assert made["status"]["allocatable"]["cpu"] == "2"
    assert "nvidia.com/gpu" not in made["status"]["allocatable"]
    assert made["spec"]["taints"] == [{"key": "sick", "value": "", "effect": "NoExecute"}]


COURSE = Course(steps=20, step_seconds=1.0, checkpoint_every=5)


def test_training_begins_when_the_last_member_is_there():
    job = FakeJob("uid", COURSE).with_pod("p-0", 0.0).with_table(_table(1), 1.0)
    assert job.status("p-0", 5.0).state == AgentState.RUNNING
    assert job.status("p-0", 5.0).step == -1
    assert job.status("p-0", 5.0).progress_age_seconds == 4.0
    job = job.with_pod("p-1", 5.0)
    assert job.status("p-0", 8.5).step == 3
    assert job.status("p-0", 8.5).progress_age_seconds == 0.5
    assert job.ends_at == 25.0


def test_without_a_table_agents_wait():
    status = FakeJob("uid", COURSE).with_pod("p-0", 0.0).status("p-0", 3.0)
    assert (status.state, status.epoch, status.step, status.checkpoint_step) == ("waiting", 0, -1, -1)


def test_rank_0_tells_of_the_loss():
    job = _running()
    line = job.status("p-0", 4.0).metrics
    assert line is not None
    assert (line.step, line.total_steps, line.loss, line.epoch) == (4, 20, 2.0, 1)
    assert job.status("p-1", 4.0).metrics is None


def test_a_broken_rank_breaks_the_others_and_the_next_epoch_resumes_from_the_checkpoint():
    job = _running().with_broken_rank(3, -9, "killed", 12.5)
    cause, echo = job.status("p-1", 20.0), job.status("p-0", 20.0)
    assert (cause.state, cause.failed_rank, cause.exit_code, cause.error) == ("broken", 3, -9, "killed")
    assert (echo.state, echo.failed_rank, echo.exit_code) == ("broken", 0, 75)
    assert (cause.step, cause.checkpoint_step) == (12, 10)
    job = job.with_table(_table(2), 30.0)
    assert job.status("p-1", 30.0).exit_code is None
    assert (job.status("p-1", 30.5).step, job.status("p-1", 30.5).checkpoint_step) == (-1, 10)
    assert job.status("p-1", 31.0).step == 11
    assert job.ends_at == 40.0


def test_a_pod_that_goes_breaks_the_others_and_its_successor_has_seen_no_checkpoint():
    job = _running().without_pod("p-1", 7.0)
    assert job.status("p-0", 9.0).state == AgentState.BROKEN
    job = job.with_pod("p-1", 9.0)
    assert job.status("p-1", 9.0).epoch == 1
    job = job.with_table(_table(2), 10.0)
    assert job.status("p-0", 10.5).checkpoint_step == 5
    assert job.status("p-1", 10.5).checkpoint_step == -1
    assert job.status("p-1", 11.0).step == 6


def test_a_hang_stops_the_steps_and_nothing_else():
    status = _running().hung(3.2).status("p-0", 60.0)
    assert (status.state, status.step, status.progress_age_seconds) == ("running", 3, 57.0)


def test_an_old_table_and_another_jobs_change_nothing():
    job = _running()
    assert job.with_table(_table(1), 5.0) is job
    assert job.with_table(_table(2, uid="other"), 5.0) is job


def test_success_ends_every_member():
    job = _running().succeeded(20.0)
    assert [job.status(pod, 21.0).state for pod in ("p-0", "p-1")] == ["succeeded", "succeeded"]
    assert job.status("p-0", 21.0).checkpoint_step == 20
    assert job.without_pod("p-0", 21.0).status("p-1", 21.0).state == AgentState.SUCCEEDED


def _running() -> FakeJob:
    """Two pods of two ranks that train since 0."""
    return FakeJob("uid", COURSE).with_pod("p-0", 0.0).with_pod("p-1", 0.0).with_table(_table(1), 0.0)


def _table(epoch: int, uid: str = "uid") -> RankTable:
    members = tuple(Member(f"p-{i}", f"n-{i}", f"127.16.0.{i}", 2 * i, 2, 0, 2 * i) for i in range(2))
    return RankTable(epoch, uid, 4, Degrees(context=4), Master("127.16.0.0", 29500), f"token-{epoch}", members)


def _files() -> commands.Files:
    from pathlib import Path

    from clusterkit.certificates import KeyPair

    pair = KeyPair(Path("c"), Path("k"))
    return commands.Files(Path("."), pair, pair, pair, pair, Path("policy"))
