"""The CustomResourceDefinition: structural, bounded, described, and what the models say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from job_manifests import SHORTEST
from ring_operator import names
from ring_operator.crd import as_yaml, definition
from ring_operator.crd.changes import FREE, NEVER, fixed_fields
from ring_operator.crd.definition import field_at
from ring_operator.spec import JobSpec, job_of
from ring_operator.spec.base import INT_OR_STRING
from ring_operator.status import JobStatus
from schema_walk import nodes, schema, version, with_defaults

ROOT = Path(__file__).parents[2]
FILE = ROOT / "manifests" / "crd" / "ringtrainingjobs.yaml"
NODES = dict(nodes())
RULES = [(path, rule) for path, node in NODES.items() for rule in node.get("x-kubernetes-validations", ())]


def test_the_file_is_what_the_models_say():
    assert FILE.read_text() == as_yaml(), f"{FILE.relative_to(ROOT)} is old: ringctl crd > {FILE.relative_to(ROOT)}"
    assert yaml.safe_load(as_yaml()) == definition()


def test_it_fits_into_the_annotation_of_kubectl_apply():
    assert len(json.dumps(definition())) < 262_144 / 2


_ALLOWED = {
    "type", "description", "properties", "required", "items", "additionalProperties", "enum", "format", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
    "maxProperties", "default", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    INT_OR_STRING,
}  # fmt: skip


def test_the_schema_is_structural():
    for path, node in NODES.items():
        assert set(node) <= _ALLOWED, path
        assert (node.get("type") is not None) != bool(node.get(INT_OR_STRING)), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert (node.get("type") == "array") == ("items" in node), path
        assert isinstance(node.get("exclusiveMinimum", True), bool), path


_SERVER = ("", "apiVersion", "kind", "metadata")  # whose bounds are the API server's own


@pytest.mark.parametrize("path", [path for path in NODES if path not in _SERVER])
def test_every_value_is_bounded(path):
    node = NODES[path]
    if INT_OR_STRING in node:
        assert "maxLength" in node
        assert "pattern" in node or "x-kubernetes-validations" in node
        return
    bounds = {
        "string": {"maxLength"} if "enum" not in node else set(),
        "integer": {"minimum", "maximum"},
        "number": {"minimum", "maximum"},
        "array": {"maxItems"},
        "object": {"properties"} if "properties" in node else {"maxProperties"},
        "boolean": set(),
    }
    assert bounds[node["type"]] <= node.keys()


def test_every_field_is_described():
    entries = ("[]", "{}")
    assert [p for p, node in NODES.items() if not node.get("description") and not p.endswith(entries)] == ["metadata"]


def test_the_fields_are_those_of_the_models():
    assert set(NODES["spec"]["properties"]) == {info.alias for info in JobSpec.model_fields.values()}
    assert set(NODES["status"]["properties"]) == {info.alias for info in JobStatus.model_fields.values()}
    assert NODES["spec"]["required"] == ["model", "context", "data", "training"]


def test_lists_say_how_several_managers_share_them():
    keyed = {p: n["x-kubernetes-list-map-keys"] for p, n in NODES.items() if n.get("x-kubernetes-list-type") == "map"}
    assert keyed == {
        "spec.workers.env": ["name"],
        "spec.workers.volumes": ["name"],
        "status.conditions": ["type"],
        "status.rings": ["index"],
        "status.attempts": ["index"],
        "status.nodeFailures": ["node"],
        "status.excludedNodes": ["node"],
    }
    for path, (key,) in keyed.items():
        assert key in NODES[f"{path}[]"]["required"]
    others = [n["x-kubernetes-list-type"] for p, n in NODES.items() if n.get("type") == "array" and p not in keyed]
    assert set(others) == {"atomic"}


@pytest.mark.parametrize(
    "source", [SHORTEST, *(p.read_text() for p in (ROOT / "manifests" / "samples").glob("*.yaml"))]
)
def test_defaults_filled_in_by_the_api_server_change_nothing(source):
    raw = yaml.safe_load(source)
    filled = with_defaults(raw)
    assert filled != raw
    assert filled["spec"]["checkpoint"]["path"]
    assert job_of(filled) == job_of(raw)
    assert with_defaults(filled) == filled


def test_the_status_has_no_defaults_which_nobody_found_out():
    assert [path for path, node in NODES.items() if path.startswith("status") and "default" in node] == []


@pytest.mark.parametrize("path, rule", RULES, ids=[f"{path}: {rule['rule'][:40]}" for path, rule in RULES])
def test_a_rule_has_a_message_and_blames_a_field_that_exists(path, rule):
    assert 0 < len(rule["message"]) <= 512
    assert "\n" not in rule["message"] + rule["rule"] + rule.get("messageExpression", "")
    assert rule["rule"].count("(") == rule["rule"].count(")")
    if field := rule.get("fieldPath"):
        field_at(NODES[path], field.removeprefix("."))


def test_fields_that_rules_read_without_asking_are_always_there():
    """`self.a.b` of a field that may be absent is an error to the API server, and a valid manifest refused."""
    for path, rule in RULES:
        text = re.sub(r"'[^']*'", "", rule["rule"])
        asked = set(re.findall(r"has\((?:self|oldSelf)\.([\w.]+)\)", text))
        for field in {f.rstrip(".") for f in re.findall(r"(?:self|oldSelf)\.([a-z]\w*(?:\.[a-z]\w*)*)", text)}:
            assert _sure(path, field, asked), (path, field, rule["rule"])


def _sure(path: str, field: str, asked: set[str]) -> bool:
    node, seen = NODES[path], []
    for part in field.split("."):
        if part not in node.get("properties", {}):
            return True  # a method, or a variable's field
        seen.append(part)
        child = node["properties"][part]
        present = "default" in child or part in node.get("required", ()) or ".".join(seen) in asked
        if not present and path + ".".join(seen) != "metadata":
            return False
        node = child
    return True


def test_every_field_of_the_spec_is_free_fixed_or_never_changed():
    spec = NODES["spec"]["properties"]
    placement = {f"placement.{name}" for name in spec["placement"]["properties"]}
    every = (set(spec) - {"placement"}) | placement
    assert set(fixed_fields()) | set(FREE) | {NEVER} == every
    changes = [rule for path, rule in RULES if path == "spec" and "oldSelf" in rule["rule"]]
    assert {rule["fieldPath"] for rule in changes} == {f".{field}" for field in (*fixed_fields(), NEVER)}
    assert all(rule["reason"] == "FieldValueForbidden" for rule in changes)
    assert all("Suspend the job" in rule["message"] for rule in changes if rule["fieldPath"] != f".{NEVER}")


def test_names_and_what_is_printed():
    about = definition()["spec"]
    assert definition()["metadata"]["name"] == f"{about['names']['plural']}.{names.GROUP}"
    assert (about["names"]["shortNames"], about["names"]["categories"]) == (["rtj"], ["all", "ring"])
    assert version()["subresources"] == {"status": {}}
    columns = version()["additionalPrinterColumns"]
    assert [c["name"].upper() for c in columns if not c.get("priority")] == [
        "STATE", "RINGS", "CP", "STEP", "TOKENS/S", "EFFICIENCY", "RESTARTS", "AGE",
    ]  # fmt: skip


@pytest.mark.parametrize("column", version()["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_column_shows_a_field_in_its_own_type(column):
    if "?(" in column["jsonPath"] or column["jsonPath"].startswith(".metadata"):
        return
    assert field_at(schema(), column["jsonPath"].removeprefix("."))["type"] == column["type"]
