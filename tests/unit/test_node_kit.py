"""The pure parts of the real nodes' kit: where packages come from, what programs read, what an archive leaves out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from clusterkit import build_secrets, cgroups, host, images, netns, node_config, oci_archive, pods, real_cluster
from clusterkit.host import HostError, Mirror
from clusterkit.node_config import NodePlan

PLAN = NodePlan(1, "node-b", Path("/cache/run/node-b"), "ring-e2e-1/node-b")

DEB822 = """Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://deb.example/security
Suites: bookworm-security
Components: main
"""
ONE_LINE = "# deb http://old.example x main\ndeb [signed-by=/k.gpg] http://deb.example/debian bookworm main contrib\n"
OTHER = "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: extra\n"


@pytest.mark.parametrize("name, text", [("debian.sources", DEB822), ("a.list", ONE_LINE), ("z.sources", DEB822)])
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str):
    monkeypatch.setattr(host.platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "other.sources").write_text(OTHER)
    (folder / name).write_text(text)
    assert host.debian_mirror(tmp_path) == Mirror("http://deb.example/debian", "bookworm")


@pytest.mark.parametrize("system, text", [("ubuntu", DEB822), ("debian", OTHER)])
def test_without_a_mirror_of_debian_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, text: str
):
    monkeypatch.setattr(host.platform, "freedesktop_os_release", lambda: {"ID": system})
    (tmp_path / "sources.list").write_text(text)
    with pytest.raises(HostError, match="RING_BASE_IMAGE"):
        host.debian_mirror(tmp_path)


def test_what_is_missing_is_listed_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    monkeypatch.setattr(host.sys, "platform", "linux")
    monkeypatch.setattr(host, "_found", lambda program: program not in ("runc", "buildah", "/usr/lib/cni/bridge"))
    with pytest.raises(HostError, match=r"apt-get install .*buildah containernetworking-plugins runc.*KUBECONFIG"):
        host.check_host()


def test_without_root_real_nodes_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"root on Linux, and this is user 1000.*KUBECONFIG"):
        host.check_host()


def test_pip_gets_the_index_and_a_certificate_where_the_build_mounts_it():
    text = build_secrets.pip_conf({"index-url": "https://packages.example/all"}, "/etc/pip.pem")
    assert "index-url = https://packages.example/all\ncert = /etc/pip.pem\n" in text
    assert "cert" not in build_secrets.pip_conf({}, None)


MOUNTS = """25 30 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
29 25 0:26 /docker/1 /elsewhere rw - cgroup cgroup rw,memory
"""


def test_hierarchies_of_both_versions_are_found_where_they_are_whole():
    root = Path("/sys/fs/cgroup")
    assert cgroups.hierarchies(MOUNTS) == [root / "unified", root / "cpu,cpuacct", root / "systemd"]


def test_nodes_have_addresses_and_pods_of_their_own():
    first, second = netns.pod_range(0), netns.pod_range(1)
    assert first[1] < second[0]
    assert len({netns.SERVER_ADDRESS, netns.GATEWAY, netns.node_address(0), netns.node_address(1)}) == 4


def test_a_kubelet_takes_no_one_without_a_certificate_or_token_and_evicts_nobody_for_the_machines_disk():
    config = yaml.safe_load(node_config.kubelet_config(PLAN, Path("/ca.crt")))
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["cgroupRoot"] == "/ring-e2e-1/node-b"
    assert config["address"] == PLAN.address
    assert set(config["evictionHard"].values()) == {"0%"}


def test_cni_gives_a_node_its_range_on_the_bridge_of_all():
    [plugin] = json.loads(node_config.cni_config(PLAN))["plugins"]
    assert plugin["bridge"] == netns.BRIDGE
    assert plugin["ipam"]["ranges"] == [
        [{"subnet": netns.POD_NETWORK, "rangeStart": "10.244.2.1", "rangeEnd": "10.244.2.254"}]
    ]


def test_an_archive_leaves_out_what_the_receiver_has(tmp_path: Path):
    blobs = {"sha256:aa": b"manifest", "sha256:bb": b"config", "sha256:cc": b"layer", "sha256:dd": b"code"}
    folder = tmp_path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for digest, content in blobs.items():
        (folder / digest.removeprefix("sha256:")).write_bytes(content)
    image = images.Image("localhost/x:dev", "sha256:aa", {digest: len(content) for digest, content in blobs.items()})
    pipe = io.BytesIO()
    oci_archive.write_archive(images.Images(tmp_path, (image,)), {"sha256:cc"}, pipe)
    with tarfile.open(fileobj=io.BytesIO(pipe.getvalue())) as archive:
        names, index = archive.getnames(), archive.extractfile("index.json")
    assert sorted(names) == [
        *("blobs/sha256/aa", "blobs/sha256/bb", "blobs/sha256/dd"),
        *("index.json", "oci-layout"),
    ]
    assert index is not None
    [entry] = json.load(index)["manifests"]
    assert (entry["digest"], entry["size"]) == ("sha256:aa", 8)
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/x:dev"


def test_a_volume_is_bound_to_its_claim_and_to_no_other():
    volume, claim = real_cluster.volume_manifests("research", "storage", Path("/var/lib/ring-shared/a"))
    assert volume["spec"]["claimRef"] == {"namespace": "research", "name": "storage"}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_small_pod_asks_for_a_node_only_where_it_is_named():
    assert "nodeSelector" not in pods.python_pod("a", "image", "pass")["spec"]
    assert pods.python_pod("a", "image", "pass", node="node-b")["spec"]["nodeSelector"] == {
        "kubernetes.io/hostname": "node-b"
    }


@pytest.mark.parametrize("part", ["operator", "worker"])
def test_the_dockerfiles_name_no_registry_and_run_as_nobody(part: str):
    text = (images.ROOT / part / "Dockerfile").read_text()
    instructions = [line.split() for line in text.splitlines() if line and line.split()[0].isupper()]
    assert ["ARG", "BASE=python:3.11.13-slim-bookworm"] in instructions
    assert all(words[1] in ("${BASE}", "dependencies") for words in instructions if words[0] == "FROM")
    assert ["USER", "65532:65532"] in instructions
    assert "://" not in text
