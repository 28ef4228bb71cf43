"""Labels of every family, alone, mixed, missing and contradictory -> levels and places."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.nodes import AWS, TOPOGRAPH, TOPOGRAPH_0, Grid, grid
from ring_operator.topology import Level, find_level, node_of, topology_of
from ring_operator.topology.tree import shared
from topology_cases import domains, labelled, level_names, tree

ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
TIER = "fabric.topograph.run/tier-"
DOMAIN, PART = "accelerator.topograph.run/domain", "accelerator.topograph.run/sub-domain"
OLD = "network.topology.nvidia.com/"
CLIQUE = "nvidia.com/gpu.clique"
LAYER = "topology.k8s.aws/network-node-layer-"
BLOCK, ULTRA = "topology.k8s.aws/capacity-block-id", "topology.k8s.aws/ultraserver-id"
GCE = "cloud.google.com/gce-topology-"
OCI = "oci.oraclecloud.com/"
CUSTOM = "example.com/row", "example.com/rack"
UUID = "8c3e1a2b-5f70-4a81-b0c9-0123456789ab"


@pytest.mark.parametrize("labels, names", [
    ({REGION: "us", ZONE: "us-a"}, ["region", "zone"]),
    ({TIER + "0": "s1"}, ["rack"]),
    ({TIER + "0": "s1", TIER + "1": "s2", TIER + "2": "s3"}, ["core", "spine", "rack"]),
    ({f"{TIER}{n}": f"s{n}" for n in range(12)}, [*(f"tier-{n}" for n in range(11, 2, -1)), "core", "spine", "rack"]),
    ({TIER + "0": "s1", DOMAIN: "nvl"}, ["rack", "nvlink"]),
    ({OLD + "core": "c", OLD + "spine": "s", OLD + "leaf": "l", OLD + "accelerator": "x"},
     ["core", "spine", "rack", "nvlink"]),
    ({OLD + "datacenter": "d", OLD + "spine": "s", OLD + "block": "b"}, ["core", "spine", "rack"]),
    ({CLIQUE: f"{UUID}.0"}, ["nvlink"]),
    ({LAYER + "1": "nn-1", LAYER + "2": "nn-2", LAYER + "3": "nn-3"}, ["core", "spine", "rack"]),
    ({LAYER + "1": "nn-1", LAYER + "2": "nn-2", LAYER + "3": "nn-3", BLOCK: "cb", ULTRA: "us"},
     ["core", "spine", "rack", "nvlink"]),
    ({BLOCK: "cb-1"}, ["core"]),
    ({GCE + "block": "b", GCE + "subblock": "s", GCE + "host": "h"}, ["spine", "rack"]),
    ({OCI + "host.network_block_id": "n", OCI + "host.rack_id": "r"}, ["spine", "rack"]),
    ({OCI + "rdma.hpc_island_id": "i", OCI + "rdma.network_block_id": "n", OCI + "rdma.local_block_id": "l"},
     ["core", "spine", "rack"]),
    ({TIER + "x": "no", "topology.kubernetes.io/rack": "no", ZONE: ""}, []),
    ({}, []),
])  # fmt: skip
def test_levels_of_each_family(labels: Mapping[str, str], names: list[str]) -> None:
    topology = tree(labels)
    assert level_names(topology) == names
    assert topology.sites[0].unknown == ()


def test_values_are_the_names_of_domains() -> None:
    topology = tree({ZONE: "z", TIER + "0": "sw-1"}, {ZONE: "z", TIER + "0": "sw-2"})
    assert domains(topology) == [("z", "sw-1"), ("z", "sw-2")]
    assert topology.levels == (Level("zone", (ZONE,)), Level("rack", (TIER + "0",)))
    assert topology.hop_names == ("zone", "rack", "node")


@pytest.mark.parametrize("labels, levels", [
    (TOPOGRAPH, ["zone", "spine", "rack", "nvlink-domain", "nvlink"]),
    (TOPOGRAPH_0, ["zone", "spine", "rack", "nvlink-domain", "nvlink"]),
    (AWS, ["core", "spine", "rack"]),
])  # fmt: skip
def test_a_grid_of_simulated_nodes(labels: Mapping[str, str], levels: list[str]) -> None:
    shape = Grid(zones=2, spines=2, racks=3, nodes=4, nvlink=2, labels=labels)
    topology = topology_of([node_of(raw) for raw in grid(shape)])
    assert level_names(topology) == levels
    rack = levels.index("rack")
    assert len({site.domains[rack] for site in topology.sites}) == 12
    a, b, far = (topology.by_name[f"node-{i}"] for i in (0, 3, 47))
    assert (shared(a, b), shared(a, far)) == (rack + (2 if "nvlink" in levels else 1), 0)


def test_a_clique_is_two_levels_where_a_cluster_has_several() -> None:
    topology = tree(*({CLIQUE: f"{UUID}.{i}"} for i in (0, 0, 1)))
    assert level_names(topology) == ["nvlink-domain", "nvlink"]
    assert domains(topology) == [(UUID, f"{UUID}.0"), (UUID, f"{UUID}.0"), (UUID, f"{UUID}.1")]


@pytest.mark.parametrize("value", ["", "00000000-0000-0000-0000-000000000000.0", f"{UUID}."])
def test_a_clique_that_says_nothing_is_none(value: str) -> None:
    a, b = tree({CLIQUE: value, TIER + "0": "r"}, {CLIQUE: value, TIER + "0": "r"}).sites
    assert shared(a, b) == 1


def test_an_accelerator_domain_without_parts_is_one_part() -> None:
    topology = tree({DOMAIN: "d1", PART: "p1"}, {DOMAIN: "d1", PART: "p2"}, {DOMAIN: "d2"}, {DOMAIN: "d2"})
    assert level_names(topology) == ["nvlink-domain", "nvlink"]
    a, b, c, d = topology.sites
    assert (shared(a, b), shared(c, d), shared(a, c)) == (1, 2, 0)
    assert c.unknown == ()


def test_families_mix_by_their_steps() -> None:
    topology = tree(
        {ZONE: "z", TIER + "1": "s", TIER + "0": "r1"},
        {ZONE: "z", TIER + "1": "s", TIER + "0": "r2"},
        {ZONE: "z", LAYER + "1": "n1", LAYER + "2": "n2", LAYER + "3": "r1"},
        {ZONE: "z", LAYER + "1": "n1", LAYER + "2": "n2", LAYER + "3": "r1"},
    )
    a, b, c, d = topology.sites
    assert level_names(topology) == ["zone", "core", "spine", "rack"]
    assert topology.levels[3].keys == (TIER + "0", LAYER + "3")
    assert (shared(a, b), shared(c, d), shared(a, c)) == (3, 4, 1)  # both r1 are racks of two families
    assert (a.unknown, c.unknown) == (("core",), ())


def test_of_two_families_on_one_node_the_one_that_more_nodes_carry_counts() -> None:
    both = {TIER + "0": "leaf-9", LAYER + "3": "nn-1"}
    a, b = tree(both, {LAYER + "3": "nn-1"}).sites
    assert shared(a, b) == 1


def test_capacity_blocks_say_something_only_where_nothing_better_does() -> None:
    layers = {LAYER + "1": "n1", LAYER + "3": "n3"}
    topology = tree({**layers, BLOCK: "cb-1"}, {**layers, BLOCK: "cb-2"}, {BLOCK: "cb-1"}, {BLOCK: "cb-1"})
    a, b, c, d = topology.sites
    assert (shared(a, b), shared(a, c), shared(c, d)) == (2, 0, 1)
    assert c.unknown == ("rack",)


def test_machines_under_virtual_ones_count_where_they_hold_several() -> None:
    assert level_names(tree({GCE + "host": "h1"}, {GCE + "host": "h2"})) == []
    assert level_names(tree({GCE + "host": "h1"}, {GCE + "host": "h1"})) == ["host"]


def test_a_node_without_labels_is_near_to_nobody_and_told() -> None:
    rack = {ZONE: "z", TIER + "0": "r"}
    a, b, c, d = tree(rack, rack, {}, {}).sites
    assert [shared(c, other) for other in (a, b, d)] == [0, 0, 0]
    assert (a.unknown, c.unknown) == ((), ("zone", "rack"))


def test_a_missing_wider_level_is_what_others_of_the_closer_domain_tell() -> None:
    a, b, c = tree({ZONE: "z", TIER + "1": "s", TIER + "0": "r"}, {TIER + "0": "r"}, {TIER + "1": "s"}).sites
    assert (a.domains, b.domains) == (("z", "s", "r"), ("z", "s", "r"))
    assert (b.unknown, c.unknown) == ((), ("rack",))
    assert c.domains[:2] == ("z", "s")
    assert shared(a, c) == 2


def test_a_missing_wider_level_that_nobody_tells_is_one_for_all_of_the_closer_domain() -> None:
    a, b, c = tree({TIER + "0": "r1"}, {TIER + "0": "r1"}, {TIER + "1": "s", TIER + "0": "r2"}).sites
    assert (shared(a, b), shared(a, c)) == (2, 0)
    assert (a.unknown, c.unknown) == (("spine",), ())


def test_domains_that_no_label_names_are_of_one_level_each() -> None:
    """A rack x without a spine and a spine x without a zone have nothing in common."""
    a, b, _ = tree({TIER + "0": "x"}, {TIER + "1": "x"}, {ZONE: "x"}).sites
    assert shared(a, b) == 0
    assert (a.domains, b.domains) == (("?rack:x", "?rack:x", "x"), ("?spine:x", "x", "??b"))


def test_a_missing_wider_level_that_others_contradict_stays_unknown() -> None:
    rack = {TIER + "0": "r"}
    a, b, c = tree({ZONE: "z1", **rack}, {ZONE: "z2", **rack}, rack).sites
    assert (shared(a, c), shared(b, c)) == (0, 0)
    assert c.unknown == ("zone",)


def test_one_rack_under_two_zones_is_two_racks() -> None:
    topology = tree({ZONE: "z1", TIER + "0": "r"}, {ZONE: "z2", TIER + "0": "r"}, {ZONE: "z1", TIER + "0": "q"})
    assert domains(topology) == [("z1", "z1/r"), ("z2", "z2/r"), ("z1", "q")]


def test_gpus_without_nvlink_between_nodes_are_at_a_known_place() -> None:
    """Only a node whose kind has such domains elsewhere lacks one."""
    gb200 = {"nvidia.com/gpu.product": "NVIDIA-GB200", TIER + "0": "r"}
    a, b, c, d = tree({**gb200, CLIQUE: f"{UUID}.1"}, gb200, {TIER + "0": "r"}, {TIER + "0": "r"}).sites
    assert (a.unknown, b.unknown, c.unknown, d.unknown) == ((), ("nvlink",), (), ())
    assert (shared(a, b), shared(c, d)) == (1, 1)
    assert (a.kind, c.kind) == ("NVIDIA-GB200", "NVIDIA-H100-80GB-HBM3")


def test_no_labels_at_all_are_one_flat_network() -> None:
    topology = tree({}, {})
    assert (topology.levels, domains(topology), topology.hop_names) == ((), [(), ()], ("node",))
    assert topology_of([]).sites == ()


def test_levels_of_a_persons_own() -> None:
    row, rack = CUSTOM
    topology = tree({row: "1", rack: "x"}, {row: "2", rack: "y"}, {rack: "y"}, {}, levels=CUSTOM)
    assert level_names(topology) == ["row", "rack"]
    assert domains(topology)[:3] == [("1", "x"), ("2", "y"), ("2", "y")]
    assert [site.unknown for site in topology.sites] == [(), (), (), ("row", "rack")]


@pytest.mark.parametrize("keys, names", [
    ((ZONE, TIER + "0", "kubernetes.io/hostname"), ["zone", "rack"]),
    ((CLIQUE,), ["nvlink"]),
    ((OLD + "leaf", TIER + "0"), ["leaf", "tier-0"]),
    (("a.com/rack", "b.com/rack"), ["a.com/rack", "b.com/rack"]),
    ((ZONE, ZONE), ["zone"]),
    (("row", "x.com/row"), ["row", "x.com/row"]),
])  # fmt: skip
def test_names_of_own_levels(keys: tuple[str, ...], names: list[str]) -> None:
    assert level_names(tree({}, levels=keys)) == names


def test_a_key_that_no_node_carries_leaves_all_unknown() -> None:
    a, b = tree({}, {}, levels=["example.com/typo"]).sites
    assert (shared(a, b), a.unknown) == (0, ("typo",))


@pytest.mark.parametrize("wanted, number", [
    ("rack", 2), (LAYER + "3", 2), ("network-node-layer-2", 1), ("zone", 0), ("row", None), ("", None),
])  # fmt: skip
def test_levels_are_found_by_name_key_or_word(wanted: str, number: int | None) -> None:
    topology = tree({ZONE: "z", LAYER + "2": "a", LAYER + "3": "b"})
    assert find_level(topology.levels, wanted) == number


KEYS = (ZONE, TIER + "1", TIER + "0", LAYER + "3", CLIQUE, DOMAIN)
PLACE = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["x", "y", "x.1", "x.2"]))


@given(st.lists(PLACE, max_size=8))
def test_domains_nest_whatever_the_labels(places: list[dict[str, str]]) -> None:
    topology = tree(*places)
    for level in range(1, len(topology.levels)):
        wider: dict[str, tuple[str, ...]] = {}
        for site in topology.sites:
            assert wider.setdefault(site.domains[level], site.domains[:level]) == site.domains[:level]
    assert all(len(site.domains) == len(topology.levels) for site in topology.sites)


@given(st.lists(PLACE, min_size=2, max_size=8))
def test_nobody_is_near_without_a_label_that_says_so(places: list[dict[str, str]]) -> None:
    """Two nodes that share no label's value share no domain."""
    for a, mine in enumerate(places):
        for b, others in enumerate(places[:a]):
            if not _linked(places, a, b):
                sites = topology_of(labelled(*places)).sites
                assert shared(sites[a], sites[b]) == 0, (mine, others)


def _linked(places: list[dict[str, str]], a: int, b: int) -> bool:
    """Whether a chain of shared values leads from one to the other."""
    reached, front = {a}, [a]
    while front:
        here = _values(places[front.pop()])
        fresh = {i for i, place in enumerate(places) if i not in reached and here & _values(place)}
        reached |= fresh
        front += fresh
    return b in reached


def _values(place: Mapping[str, str]) -> set[tuple[str, str]]:
    return {*place.items(), *((CLIQUE, v.rpartition(".")[0]) for k, v in place.items() if k == CLIQUE)}
