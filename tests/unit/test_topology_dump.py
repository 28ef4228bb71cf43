"""What kubectl writes -> nodes and pods; anything else is refused with the file's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from ring_operator.errors import UserError
from ring_operator.topology import read_dump
from topology_cases import raw_node, raw_pod

NODES = [raw_node("a"), raw_node("b")]
PODS = [raw_pod("p", "a")]


def of_kind(kind: str, items: list[Any], typed: bool = False) -> dict[str, Any]:
    if typed:
        items = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
    return {"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": ""}, "items": items}


@pytest.mark.parametrize("text, nodes, pods", [
    (json.dumps(of_kind("List", [*NODES, *PODS])), ["a", "b"], ["p"]),
    (json.dumps(of_kind("List", [*NODES, *PODS]), indent="\t"), ["a", "b"], ["p"]),
    (json.dumps(of_kind("NodeList", NODES, typed=True)), ["a", "b"], []),
    (json.dumps(NODES[0]), ["a"], []),
    (yaml.safe_dump(of_kind("List", [*NODES, *PODS])), ["a", "b"], ["p"]),
    (yaml.safe_dump_all([*NODES, *PODS]), ["a", "b"], ["p"]),
    (yaml.safe_dump_all([of_kind("NodeList", NODES, typed=True), None, of_kind("PodList", PODS)]), ["a", "b"], ["p"]),
    (json.dumps(of_kind("List", [*NODES, {"kind": "Service"}, NODES[0], "junk"])), ["a", "b"], []),
])  # fmt: skip
def test_every_form_that_kubectl_writes(text: str, nodes: list[str], pods: list[str]) -> None:
    dump = read_dump(text, "nodes.json")
    assert [raw["metadata"]["name"] for raw in dump.nodes] == nodes
    assert [raw["metadata"]["name"] for raw in dump.pods] == pods
    assert dump.nodes[0]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert dump.has_pods == bool(pods)


@pytest.mark.parametrize("text, said", [
    ("", "f.json: is empty"),
    (" \n", "f.json: is empty"),
    ('{"kind": "List", "items": [', "f.json:1: not JSON: it ends in the middle; was it cut off?"),
    ('{\n"kind" "List"}', "f.json:2: not JSON: Expecting ':' delimiter"),
    ("[1]", "f.json: not what kubectl writes, but a list"),
    ("NAME STATUS", "f.json: not what kubectl writes, but plain text"),
    ("a: b", "f.json: not what kubectl writes, but a mapping without a kind"),
    ("a: [", "f.json:1: neither JSON nor YAML"),
    ("a: !!python/object:os.system x", "f.json:1: neither JSON nor YAML"),
    ("a: \x00", "f.json: neither JSON nor YAML"),
    ("[" * 100_000, "f.json: not JSON: nested too deep"),
    ("- " * 50_000, "f.json: nested more than 64 deep"),
    (json.dumps(of_kind("List", [])), "f.json: no Node in it, but an empty list"),
    (json.dumps(of_kind("List", PODS)), "f.json: no Node in it, but only objects of Pod"),
    ("kind: Node\nmetadata: 2026-99-99", "f.json: neither JSON nor YAML"),
])  # fmt: skip
def test_anything_else_is_refused_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_dump(text, "f.json")
    assert str(refused.value).startswith(said)
    assert "kubectl get nodes,pods -A -o json > nodes.json" in str(refused.value)
