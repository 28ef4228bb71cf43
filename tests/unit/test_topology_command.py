"""`ringctl topology` from its command line to what it prints, and the picture's geometry."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from clusterkit.nodes import Grid, grid
from pretend_api import PretendApi
from ring_operator.cli.drawing import Picture, lay_out
from ring_operator.cli.main import app
from ring_operator.errors import UserError
from ring_operator.topology import Topology, node_of, topology_of
from topology_cases import H100, raw_node, raw_pod, tree

GPU = "nvidia.com/gpu"
TIER = "fabric.topograph.run/tier-"
Show = Callable[..., Result]


def rack(name: str, **more: Any) -> dict[str, Any]:
    return {"labels": {TIER + "1": "s", TIER + "0": name}, **more}


ODD = [
    raw_node("a-1", **rack("r2")),
    raw_node("a-2", **rack("r2")),
    raw_node("a-10", **rack("r10", cordoned=True)),
    raw_node("b", **rack("r10", taints=[{"key": GPU, "value": "present", "effect": "NoSchedule"}])),
    raw_node("cpu", gpus=0, **rack("r10")),
    raw_node("lost"),
    raw_pod("p", "a-2", {GPU: "4"}),
    raw_pod("q", "b", {GPU: "8"}),
]


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """`ringctl topology` of these objects."""

    def run(objects: list[Any], *words: str) -> Result:
        file = tmp_path / "nodes.json"
        file.write_text(json.dumps({"kind": "List", "items": objects}))
        return CliRunner().invoke(app, ["topology", "--nodes", str(file), *words])

    return run


def test_the_tree_in_text(show: Show) -> None:
    assert show(ODD).stdout.splitlines() == [
        "6 nodes, 2 free, 20 of 40 GPUs free: NVIDIA-H100-80GB-HBM3",
        "  2 free, 1 partly used, 1 busy, 1 closed, 1 without GPUs",
        "  levels, widest first",
        f"    spine  1 domain     {TIER}1",
        f"    rack   2 domains    {TIER}0",
        "  note  1 node has no label for spine and rack and counts as far from all others: lost",
        "",
        "├─ spine s: 5 nodes, 1 free, 12 of 32 GPUs free",
        "│  ├─ rack r2: 2 nodes, 1 free, 12 of 16 GPUs free",
        "│  │  ├─ a-1",
        "│  │  └─ a-2  4 of 8 GPUs free",
        "│  └─ rack r10: 3 nodes, 0 free, 0 of 16 GPUs free",
        "│     ├─ a-10  is cordoned",
        "│     ├─ b  0 of 8 GPUs free",
        "│     └─ cpu",
        "└─ spine not labelled: 1 node, 1 free, 8 of 8 GPUs free",
        "   └─ lost",
    ]


def test_many_nodes_are_told_in_numbers(show: Show) -> None:
    nodes = grid(Grid(racks=20, nodes=5))
    short, full = show(nodes).stdout, show(nodes, "--full").stdout
    assert "and 8 racks more: 40 nodes, 40 free, 320 of 320 GPUs free" in short
    assert "node-1\n" not in short
    assert len(full.splitlines()) > 120
    assert "node-99" in full


def test_a_flat_network_is_said_to_be_one(show: Show) -> None:
    out = show([raw_node(f"n{i}") for i in range(12)]).stdout
    assert "one flat network: no node has a label that says where it is" in out
    assert "no pods are in the file, so every node is taken to be empty" in out
    assert "and 4 more nodes, 4 free, 32 of 32 GPUs free" in out


def test_the_tree_for_programs(show: Show) -> None:
    found = json.loads(show(ODD, "-o", "json").stdout)
    assert found["levels"][1] == {"name": "rack", "keys": [TIER + "0"], "domains": 3}
    assert (found["total"], found["free"], found["gpus"], found["gpusFree"]) == (6, 2, 40, 20)
    assert (found["unknown"], found["kinds"]) == (["lost"], {H100["nvidia.com/gpu.product"]: 5})
    assert [part["name"] for part in found["domains"][0]["domains"]] == ["r2", "r10"]
    assert found["nodes"][2]["why"] == "is cordoned"
    assert found["nodes"][0]["domains"] == {"spine": "s", "rack": "r2"}


def test_own_levels_and_a_key_that_nobody_has(show: Show) -> None:
    out = show([raw_node("a", labels={"x/row": "1"})], "--levels", "x/row", "--levels", "x/rock").stdout
    assert "row   1 domain" in out
    assert "note  no node has the label x/rock" in out


def test_the_picture_is_well_formed_and_the_same_each_time(show: Show) -> None:
    bad = raw_node("<&>", labels={TIER + "0": '"><script>\x1b'})
    first, again = (show([*ODD, bad], "-o", "svg").stdout for _ in range(2))
    assert first == again
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg")
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "\x1b" not in show([bad]).stdout
    assert "http" not in first.replace("http://www.w3.org/2000/svg", "")


def test_a_file_and_a_cluster_are_too_much(show: Show) -> None:
    result = show(ODD, "--context", "here")
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--nodes: is a file, but --context is a cluster")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["topology", "--nodes", str(tmp_path / "no.json")])
    assert isinstance(result.exception, UserError)
    assert "no.json: cannot be read" in str(result.exception)


def test_standard_input_is_read() -> None:
    text = json.dumps({"kind": "List", "items": ODD})
    assert "6 nodes, 2 free" in CliRunner().invoke(app, ["topology", "--nodes", "-"], input=text).stdout


def test_a_cluster_is_asked(tmp_path: Path) -> None:
    with PretendApi() as api:
        where = ["topology", "--kubeconfig", str(api.kubeconfig(tmp_path)), "--context", "here"]
        empty = CliRunner().invoke(app, where)
        assert "has no nodes" in str(empty.exception)
        api.nodes = [each for each in ODD if each["kind"] == "Node"]
        api.pods = [each for each in ODD if each["kind"] == "Pod"]
        assert "6 nodes, 2 free, 20 of 40 GPUs free" in CliRunner().invoke(app, where).stdout
        api.forbidden = {"/api/v1/pods"}
        result = CliRunner().invoke(app, where)
        assert "every node is taken to be empty" in result.stdout
        assert 'User "ada" cannot list' in result.stderr


def of_grid(**shape: Any) -> Topology:
    return topology_of([node_of(raw) for raw in grid(Grid(**shape))])


@pytest.mark.parametrize("topology", [
    tree({}), tree({}, {}, {}), topology_of([]), of_grid(racks=2, nodes=2),
    of_grid(zones=2, spines=4, racks=4, nodes=16), of_grid(spines=3, racks=3, nodes=7, nvlink=3),
    of_grid(racks=1, nodes=200),
    topology_of([node_of(raw) for raw in ODD if raw["kind"] == "Node"]),
])  # fmt: skip
def test_cells_lie_in_the_boxes_of_their_domains_and_on_no_other_cell(topology: Topology) -> None:
    picture = lay_out(topology)
    assert picture.cells.keys() == topology.by_name.keys()
    assert len({cell.centre for cell in picture.cells.values()}) == len(picture.cells)
    _apart(picture)
    for box in picture.boxes:
        inside = {site.name for site in box.domain.sites}
        for name, cell in picture.cells.items():
            x, y = cell.centre
            assert (box.x < x < box.x + box.width and box.y < y < box.y + box.height) == (name in inside)
        assert box.x >= 0
        assert box.x + box.width <= picture.width + 0.01
        assert box.y + box.height <= picture.height + 0.01


def _apart(picture: Picture) -> None:
    rows: dict[float, list[tuple[float, float]]] = {}
    for cell in picture.cells.values():
        rows.setdefault(cell.y, []).append((cell.x, cell.x + cell.width))
    for row in rows.values():
        row.sort()
        assert all(left[1] < right[0] for left, right in pairwise(row))
