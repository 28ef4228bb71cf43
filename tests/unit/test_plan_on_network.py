"""`ringctl plan` on a network from a file: text, values, pictures, what-if, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner, Result

from clusterkit.nodes import Grid, grid
from ring_operator.cli.main import app
from topology_cases import raw_node, raw_pod

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "million-tokens.yaml"
Plan = Callable[..., Result]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """`ringctl plan` of 16 nodes x 8 GPUs on these objects."""

    def run(objects: list[Any], *words: str) -> Result:
        file = tmp_path / "nodes.json"
        file.write_text(json.dumps({"kind": "List", "items": objects}))
        less = ["--set", "workers.rdma=null", "--set", "workers.resources=null"]
        return CliRunner().invoke(app, ["plan", str(SAMPLE), "--nodes", str(file), *less, *words])

    return run


RACKS = grid(Grid(racks=5, nodes=8))


def test_text_says_where_and_why(plan: Plan) -> None:
    said = plan([*RACKS, raw_pod("p", "node-0", {"nvidia.com/gpu": "4"})]).stdout
    assert "16 of 39 free ones of" in said
    assert "1 node has 4 of 8 GPUs free" in said
    assert "2 cross rack (x 2), 14 cross node (x 1)" in said
    assert "18, which is the least there can be" in said


def test_values_for_programs(plan: Plan) -> None:
    found = json.loads(plan(RACKS, "-o", "json").stdout)
    [ring] = found["rings"]
    assert ring["index"] == 0
    assert len(ring["nodes"]) == len(set(ring["nodes"])) == 16
    assert found["hops"] == {"zone": 0, "spine": 0, "rack": 2, "node": 14}
    assert (found["cost"], found["lowerBound"], found["weights"]["rack"]) == (18, 18, 2)
    assert yaml.safe_load(plan(RACKS, "-o", "yaml").stdout)["rings"] == found["rings"]


def test_several_rings_of_a_node_are_all_on_it(plan: Plan) -> None:
    words = ("--set", "parallelism.context=4", "--set", "training.batch=32", "-o", "json")
    found = json.loads(plan(RACKS, *words).stdout)
    assert len(found["rings"]) == 32
    assert all(len(ring["nodes"]) == 1 for ring in found["rings"])
    assert found["rings"][0]["nodes"] == found["rings"][1]["nodes"]


def test_weights_of_the_manifest_hold(plan: Plan) -> None:
    words = ("--set", "placement.weights={rack: 7}", "-o", "json")
    assert json.loads(plan(RACKS, *words).stdout)["cost"] == 14 + 2 * 7
    refused = plan(RACKS, "--set", "placement.weights={row: 7}")
    assert "row: no such level; there are zone, spine, rack, node" in str(refused.exception)
    less = plan(RACKS, "--set", "placement.weights={spine: 1}")
    assert "spine 1 is less than rack 2, though rack lies inside it" in str(less.exception)


def test_what_if(plan: Plan) -> None:
    without = json.loads(plan(RACKS, "--exclude", "node-0", "--exclude", "node-9", "-o", "json").stdout)
    assert not {"node-0", "node-9"} & set(without["nodeOrder"])
    refused = plan(RACKS, "--within", "rack")
    assert "1 rings of 16 nodes, each inside one rack, but only 0 fit" in str(refused.exception)
    assert "within.level: spine" in str(refused.exception)
    assert plan(RACKS, "--within", "spine").exit_code == 0


@pytest.mark.parametrize("form", ["svg", "html"])
def test_the_picture_has_every_node_and_every_ring(plan: Plan, form: str) -> None:
    text = plan(RACKS, "-o", form, "--set", "parallelism.context=64").stdout
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    root = ElementTree.fromstring(svg)
    rings = root.findall(".//{*}polygon")
    assert [len((ring.get("points") or "").split()) for ring in rings] == [8, 8]
    assert len({ring.get("stroke") for ring in rings}) == 2


def test_a_picture_without_a_network_is_refused() -> None:
    for words, option in (
        (["-o", "svg"], "-o svg"),
        (["--exclude", "a"], "--exclude"),
        (["--within", "r"], "--within"),
    ):
        result = CliRunner().invoke(app, ["plan", str(SAMPLE), *words])
        assert f"{option}: needs a network" in str(result.exception)


def test_an_empty_cluster_and_unlabelled_nodes(plan: Plan) -> None:
    few = plan([raw_node("only")])
    assert "16 nodes are wanted, 1 are free" in str(few.exception)
    flat = plan([raw_node(f"n{i}") for i in range(16)])
    assert "16 cross node (x 1)" in flat.stdout


def test_uneven_shares_of_a_ring_are_refused(plan: Plan) -> None:
    uneven = ("--set", "workers.nodes=3", "--set", "parallelism.context=12", "--set", "training.batch=2")
    said = str(plan(RACKS, *uneven).exception)
    assert "context 12 x tensor 1 = 12 ranks share a sequence, which 8 GPUs a node do not divide" in said
    assert "Take context x tensor of 8 or 16, or a divisor of 8." in said
