"""Placement in the reconcile, against a cluster in memory: gates, pins, release, and ranks that follow the network."""

from __future__ import annotations

from typing import Any

from job_manifests import STORAGE, job
from pretend_cluster import PretendCluster
from ring_operator.reconcile.view import Pin
from ring_operator.status.conditions import is_true
from ring_operator.topology import Site


def cluster(nodes: int = 4, **changes: Any) -> PretendCluster:
    base = {"workers.nodes": nodes, "workers.processesPerNode": 1, "workers.volumes": [STORAGE]}
    return PretendCluster(job({**base, **changes}))


def placed(there: PretendCluster) -> str:
    [condition] = [c for c in there.status.conditions if c.type == "Placed"]
    return f"{condition.reason}: {condition.message}"


def test_no_pod_is_bound_before_all_have_nodes_and_then_all_are() -> None:
    there = cluster()
    there.look()
    assert all(pod.gated for pod in there.facts())
    there.step()
    assert not any(pod.bound for pod in there.facts())
    pins = [act for act in there.look().acts if isinstance(act, Pin)]
    assert sorted(act.name for act in pins) == ["tiny-0", "tiny-1", "tiny-2", "tiny-3"]
    assert sorted(act.node for act in pins) == ["node-0", "node-1", "node-2", "node-3"]  # one rack
    there.settle()
    assert there.status.state == "Running"
    assert {(hop.level, hop.hops) for hop in there.status.placement.hops} == {("rack", 0), ("node", 4)}  # type: ignore[union-attr]
    assert "4 hops cross node; cost 4, at least 4" in placed(there)


def test_a_job_that_finds_no_nodes_waits_and_says_what_is_missing() -> None:
    there = cluster()
    there.busy = {f"node-{i}" for i in range(62)}
    there.settle()
    assert not any(pod.bound for pod in there.facts())
    assert placed(there).startswith(
        "NoPlacement: 0 of 4 pods are on nodes; 4 nodes are wanted, 2 are free; 62 are in use"
    )
    there.busy = set()
    there.settle()
    assert there.status.state == "Running"


def test_where_another_took_a_node_all_pods_go_and_come_again_later() -> None:
    there = cluster()
    there.stolen = {"node-2"}
    there.settle(looks=6)
    assert sum(pod.bound for pod in there.facts()) == 3
    there.now += 31
    there.look()
    assert there.status.placement is not None
    assert [entry.node for entry in there.status.excluded_nodes] == ["node-2"]
    assert (there.status.placement.retries, [t.reason for t in there.told][-1]) == (1, "PlacementReleased")
    there.step()
    there.look()
    assert there.facts() == ()  # nobody holds half of the nodes
    there.now += 5
    there.settle()
    assert there.status.state == "Running"
    assert "node-2" not in {pod.node for pod in there.facts()}
    assert there.status.restarts.total == 0


def test_a_node_that_goes_away_before_the_ranks_start_does_not_hold_the_job_up() -> None:
    there = cluster()
    for _ in range(2):
        there.look()
    there.unready = {"node-1"}  # chosen, and gone before its kubelet takes the pod
    there.step()
    there.now += 31
    there.settle(looks=30)
    assert there.status.state == "Running"


def test_ranks_follow_the_network_and_not_the_pods_numbers() -> None:
    there = cluster(nodes=4, **{"placement.mode": "scheduler"})
    there.sites = tuple(Site(f"node-{i}", (f"rack-{i % 2}",)) for i in range(64))
    there.settle()
    assert not any(pod.pinned for pod in there.facts())
    assert there.table is not None
    assert [m.node for m in there.table.members] == ["node-0", "node-2", "node-1", "node-3"]
    assert [hop.hops for hop in there.status.placement.hops] == [2, 2]  # type: ignore[union-attr]


def test_after_a_replacement_the_ring_is_ranked_anew() -> None:
    there = cluster(nodes=8)
    there.settle()
    lost = next(pod for pod in there.facts() if pod.node == "node-1")
    there.busy = {f"node-{i}" for i in range(8, 16)}
    there.lose("node-1")
    there.settle(looks=25)
    assert there.status.state == "Running", there.status
    assert lost.name not in there.pods
    assert there.table is not None
    racks = [int(m.node.split("-")[1]) // 4 for m in there.table.members]
    assert racks == sorted(racks)  # three racks, each visited once
    assert there.status.placement is not None
    assert {hop.level: hop.hops for hop in there.status.placement.hops} == {"rack": 3, "node": 5}


def test_required_that_cannot_be_met_is_refused_with_the_way_out() -> None:
    there = cluster(nodes=5, **{"placement.within": {"level": "rack", "policy": "required"}, "training.batch": 5})
    there.settle()
    assert "1 rings of 5 nodes, each inside one rack, but only 0 fit: rack-0 has 4" in placed(there)
    there = cluster(**{"placement.within": {"level": "row"}})
    there.settle()
    assert "spec.placement.within.level: row is no level" in placed(there)
    assert not is_true(there.status, "Placed")


def test_rings_that_cross_what_was_preferred_are_told() -> None:
    there = cluster(nodes=5, **{"placement.within": {"level": "rack"}, "training.batch": 5})
    there.settle()
    assert there.status.state == "Running"
    assert "1 of 1 rings cross rack" in placed(there)
