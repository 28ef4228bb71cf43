"""The optimiser against brute force, the named cases, and what it says when there is no placement."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement_brute import least
from ring_operator.placement import Placement, Problem, Refusal, place
from ring_operator.placement.problem import Within
from ring_operator.topology import Site


def racks(*free: int, kind: str = "h100") -> tuple[Site, ...]:
    """So many free nodes in each rack of one level."""
    return tuple(Site(f"n{r}-{i}", (f"rack-{r}",), kind) for r, count in enumerate(free) for i in range(count))


def problem(sites: tuple[Site, ...], groups: int, size: int, **more: object) -> Problem:
    levels = tuple(f"level-{i}" for i in range(len(sites[0].domains)))
    weights = tuple(float(2 ** (len(levels) - i)) for i in range(len(levels) + 1))
    fields = {"pipeline": 1, "weights": weights, **more}
    return Problem(levels=levels, free=sites, data=groups, size=size, **fields)  # type: ignore[arg-type]


def placed(wanted: Problem) -> Placement:
    found = place(wanted)
    assert isinstance(found, Placement), found
    used = [name for ring in found.rings for name in ring]
    assert len(used) == len(set(used)) == wanted.wanted
    assert set(used) <= {site.name for site in wanted.free}
    assert wanted.kept <= set(used)
    assert [len(ring) for ring in found.rings] == [wanted.size] * wanted.groups
    assert found.lower_bound <= found.cost + 1e-9
    return found


@pytest.mark.parametrize(
    "free, size, crossing",
    [
        ((3, 4, 4, 4, 1), 4, 2),
        ((5, 8, 3), 8, 2),
        ((3, 8, 8, 5), 8, 2),
        ((2, 4, 4, 2), 4, 2),
        ((8,) * 8, 64, 8),
        ((4, 4), 4, 0),
    ],
)
def test_rings_over_fragmented_racks_cross_as_seldom_as_can_be(free: tuple[int, ...], size: int, crossing: int) -> None:
    found = placed(problem(racks(*free), sum(free) // size, size))
    assert dict(found.hops)["level-0"] == crossing
    assert found.gap == 0


TREES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2)).map(lambda path: (f"s{path[0]}", f"s{path[0]}r{path[1]}")),
    min_size=4,
    max_size=8,
)
WEIGHTS = st.lists(st.integers(0, 9), min_size=3, max_size=3).map(lambda w: tuple(map(float, sorted(w, reverse=True))))


@settings(max_examples=120, deadline=None)
@given(TREES, st.sampled_from([(1, 3), (2, 2), (2, 3), (1, 4), (3, 2), (2, 4), (4, 2)]), WEIGHTS, st.data())
def test_it_is_as_good_as_trying_everything(
    paths: list[tuple[str, str]], shape: tuple[int, int], weights: tuple[float, ...], data: st.DataObject
) -> None:
    groups, size = shape
    sites = tuple(Site(f"n{i}", path) for i, path in enumerate(paths))
    if groups * size > len(sites):
        assert isinstance(place(problem(sites, groups, size)), Refusal)
        return
    found = placed(problem(sites, groups, size, weights=weights))
    assert found.cost == pytest.approx(least(sites, groups, size, weights, frozenset()))


@settings(max_examples=40, deadline=None)
@given(TREES, st.randoms(use_true_random=False))
def test_a_kept_set_is_ordered_as_well_as_can_be(paths: list[tuple[str, str]], rng: random.Random) -> None:
    sites = [Site(f"n{i}", path) for i, path in enumerate(paths)]
    sites = sites[: len(sites) // 2 * 2]
    wanted = problem(tuple(sites), 2, len(sites) // 2, kept=frozenset(site.name for site in sites))
    found = placed(wanted)
    assert found.cost == pytest.approx(least(sites, 2, len(sites) // 2, wanted.weights, wanted.kept))
    rng.shuffle(sites)
    assert place(problem(tuple(sites), 2, len(sites) // 2, kept=wanted.kept)) == found


def test_one_replaced_node_is_ranked_anew() -> None:
    """Racks A and B with eight nodes each; one of B is lost and one of C comes: three crossings, not four."""
    sites = (*racks(8, 7), Site("c", ("rack-c",), "h100"))
    found = placed(problem(sites, 1, 16, kept=frozenset(site.name for site in sites)))
    assert dict(found.hops)["level-0"] == 3


def test_a_replacement_is_taken_from_nearby() -> None:
    sites = racks(3, 4, 5)
    kept = frozenset(site.name for site in sites[:3])
    assert dict(placed(problem(racks(3, 4, 5), 1, 4, kept=kept)).hops)["level-0"] == 2
    room = (*racks(4, 4), *racks(0, 0, 5))
    assert dict(placed(problem(room, 1, 4, kept=kept)).hops)["level-0"] == 0


def test_nodes_of_one_kind_and_of_a_known_place_are_preferred() -> None:
    mixed = (*racks(3, kind="a100"), *(Site(f"b{i}", ("rack-0",), "h100") for i in range(4)))
    assert placed(problem(mixed, 1, 4)).kind == "h100"
    lost = (*racks(3), Site("x", ("?x",), "h100", ("rack",)), Site("y", ("rack-9",), "h100"))
    assert placed(problem(lost, 1, 4)).unknown == ()
    found = placed(problem(lost, 1, 5))
    assert found.unknown == ("x",)
    assert "not known" in found.notes[0]


def test_a_kind_that_does_not_suffice_is_refused_with_the_numbers() -> None:
    mixed = (*racks(3, kind="a100"), *(Site(f"b{i}", ("rack-0",), "h100") for i in range(2)))
    found = place(problem(mixed, 1, 4))
    assert isinstance(found, Refusal)
    assert "3 of a100, 2 of h100" in found.reason
    assert place(problem(racks(2), 1, 3)) == Refusal(
        "3 nodes are wanted, 2 are free", "Lower spec.workers.nodes to 2, or free more nodes."
    )


def test_required_is_honoured_or_refused_and_preferred_says_by_how_much() -> None:
    sites = racks(5, 8, 3)
    refused = place(problem(sites, 2, 8, within=Within(0, required=True)))
    assert isinstance(refused, Refusal)
    assert "2 rings of 8 nodes, each inside one level-0, but only 1 fit: rack-1 has 8, rack-0 has 5" in refused.reason
    assert "preferred" in refused.instead
    note = placed(problem(sites, 2, 8, within=Within(0, required=False))).notes[0]
    assert note == "1 of 2 rings cross level-0; the largest has 8 free nodes"
    inside = placed(problem(racks(5, 8, 9), 2, 8, within=Within(0, required=True)))
    assert dict(inside.crossing) == {"level-0": 0}


def test_a_flat_network_and_rings_of_one_and_two_nodes() -> None:
    flat = tuple(Site(f"n{i}", ()) for i in range(12))
    found = placed(Problem((), flat, 1, 3, 4, (1.0,)))
    assert (found.cost, found.lower_bound, dict(found.hops)) == (12, 12, {"node": 12})
    assert found.rings[0] == ("n0", "n1", "n2", "n3")  # by number, not by letter
    assert placed(problem(racks(2, 2), 4, 1)).cost == 0
    assert dict(placed(problem(racks(1, 1), 1, 2)).hops) == {"level-0": 2, "node": 0}


def test_stages_of_a_pipeline_stand_across_from_near_nodes() -> None:
    found = placed(problem(racks(4, 4), 2, 2, pipeline=2))
    stage = {name: name.split("-")[0] for ring in found.rings for name in ring}
    for d in range(2):
        first, second = found.rings[d], found.rings[2 + d]
        assert {stage[name] for name in first} == {stage[name] for name in second}


def test_kept_nodes_are_all_used_though_others_would_cost_less() -> None:
    sites = racks(1, 3)
    found = placed(problem(sites, 1, 2, kept=frozenset({"n0-0", "n1-2"})))
    assert {name for ring in found.rings for name in ring} == {"n0-0", "n1-2"}
