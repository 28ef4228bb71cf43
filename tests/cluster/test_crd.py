"""`ringctl` and a real API server judge every manifest alike, but for a list of what no schema can say."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterkit.dry_run import DryRun
from clusterkit.kubectl import Kubectl
from job_manifests import SHORTEST, STORAGE, raw
from manifest_cases import BROKEN_RULES, OUT_OF_BOUNDS, UNKNOWN_FIELDS, unknown_field
from ring_operator import names
from ring_operator.crd import definition
from ring_operator.errors import UserError
from ring_operator.spec import every_field, job_of
from schema_walk import nodes

ROOT = Path(__file__).parents[2]
GOOD = [
    *(ROOT / "manifests" / "samples").glob("*.yaml"),
    *(ROOT / "tests" / "unit" / "cases").rglob("manifest.yaml"),
]


def said(manifest: dict[str, Any]) -> str:
    """What `ringctl` says of it, or nothing."""
    try:
        job_of(copy.deepcopy(manifest))
    except UserError as error:
        return str(error)
    return ""


def test_the_server_finds_nothing_wrong_with_the_crd_itself(crd: Kubectl):
    conditions = crd.json("get", "crd", definition()["metadata"]["name"])["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_good_manifest_is_good_to_both(path: Path, dry_run: DryRun):
    for manifest in yaml.safe_load_all(path.read_text()):
        manifest["metadata"].pop("namespace", None)
        assert said(manifest) == ""
        assert dry_run.create(manifest) == ""


@pytest.mark.parametrize("path, value, message, remedy", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_bad_to_both(path: str, value: Any, message: str, remedy: str, dry_run: DryRun):
    manifest = raw({path: value})
    assert message in said(manifest)
    assert path.split(".")[-1] in dry_run.create(manifest)


@pytest.mark.parametrize("changes, path, message, remedy", BROKEN_RULES)
def test_a_broken_rule_is_broken_to_both(
    changes: dict[str, Any], path: str, message: str, remedy: str, dry_run: DryRun
):
    manifest = raw(changes)
    assert message in said(manifest)
    answer = dry_run.create(manifest)
    several = any(words in message for words in ("more than once", "already", "is set by workers"))
    assert f"spec.{_holder(path) if several else path}" in answer, answer


def _holder(path: str) -> str:
    """The list or the mapping around what is in brackets: the server blames it where its entries are at odds."""
    return path.partition("[")[0].removesuffix(".limits").removesuffix(".requests")


@pytest.mark.parametrize("place, message, remedy", UNKNOWN_FIELDS)
def test_an_unknown_field_is_unknown_to_both(place: str, message: str, remedy: str, dry_run: DryRun):
    manifest = raw(unknown_field(place))
    assert message in said(manifest)
    assert "unknown field" in dry_run.create(manifest)


DIFFERENCES = {
    "labels and annotations are bounded by the server's own rules, and not in number": {
        "metadata.labels": {f"label-{i}": "x" for i in range(65)}
    },
    "a whole number may be written as 8192.0, and is stored as 8192": {"context.length": 8192.0},
}
"""Valid to the server and not to `ringctl`: each with the reason."""


@pytest.mark.parametrize("why", DIFFERENCES)
def test_what_only_ringctl_refuses(why: str, dry_run: DryRun):
    manifest = raw(DIFFERENCES[why])
    assert said(manifest)
    assert dry_run.create(manifest) == ""


RICH = raw(
    {
        "model": {
            "architecture": {"layers": 2, "hidden": 64, "heads": 4, "kvHeads": 2, "headDim": 16, "feedForward": 96}
        },
        "model.attention": {"pattern": ["window", "chunk", "full"], "softCap": 30.5},
        "context": {"length": 4096, "layout": "striped", "rope": {"type": "yarn", "factor": 4, "originalLength": 1024}},
        "parallelism": {"data": 1, "context": 8, "ulysses": 2, "innerRing": 2},
        "workers.nodes": 2,
        "workers.image": "worker:1",
        "workers.env": [
            {"name": "A", "value": "b"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "workers.envFrom": [{"secretRef": {"name": "s"}}],
        "workers.resources": {"requests": {"cpu": 4, "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        "workers.volumes": [
            STORAGE,
            {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "both", "mountPath": "/both", "projected": {"sources": [{"secret": {"name": "s"}}]}},
        ],
        "workers.tolerations": [{"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3}],
        "workers.nodeSelector": {"example.org/pool": "training"},
        "workers.rdma": {"resource": "rdma/hca", "count": 2},
        "placement": {"levels": ["example.org/rack"], "within": {"level": "rack"}, "excludeNodes": ["n1"]},
        "data.source": {"jsonl": {"path": "/text"}},
        "data.prepared": "/checkpoints/data",
        "training.schedule": {"warmupSteps": 3},
        "training.probe": {"everySteps": 2, "rows": 8},
        "evaluation": {"sampleTokens": 9, "samplePrompt": "a", "needle": {"lengths": [64], "depths": [0.5]}},
        "recovery": {"budget": {"application": 1}},
        "suspend": True,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 60,
    }
)  # fmt: skip


def test_the_rich_manifest_is_good_to_both(dry_run: DryRun):
    assert said(RICH) == ""
    assert dry_run.create(RICH) == ""


def _edges(node: dict[str, Any]) -> list[Any]:
    """Values at the bounds of a field, beyond them, and of other types."""
    strange: list[Any] = ["", "x", 0, -1, 1.5, True, [], {}, [None]]
    least, most = node.get("minimum", 0), node.get("maximum", 0)
    numbers = [least, most, least - 1, most + 1, 2**62] if node.get("type") in ("integer", "number") else []
    longest = node.get("maxLength", 0)
    words = [
        "a" * longest,
        "a" * (longest + 1),
        "a b",
        "A",
        "/a",
        "a\n",
        "a\x00",
        "ä",
        "a..b",
        "4",
        "500m",
        "-1",
        "1e3",
    ]
    return [*strange, *numbers, *(words if longest else ()), *node.get("enum", ())]


def _with(value: Any, parts: list[str], new: Any) -> Any:
    """A copy of a document with a value at a place; of a list or a map, in its first entry."""
    if not parts:
        return new
    part, *rest = parts
    if part == "[]":
        first, *others = value or [None]
        return [_with(first, rest, new), *others]
    fields = value or {}
    key = next(iter(fields), "k") if part == "{}" else part
    return {**fields, key: _with(fields.get(key), rest, new)}


FIELDS = {path: node for path, node in nodes() if path.startswith("spec.")}


@pytest.mark.parametrize("path", FIELDS)
def test_both_draw_the_same_line_round_every_field(path: str, dry_run: DryRun):
    parts = path.replace("[]", ".[]").replace("{}", ".{}").split(".")
    for value in _edges(FIELDS[path]):
        _agree(_with(RICH, parts, value), dry_run)


def _agree(manifest: dict[str, Any], dry_run: DryRun) -> None:
    mine, theirs = said(manifest), dry_run.create(manifest)
    assert bool(mine) == bool(theirs), f"ringctl: {mine or 'valid'}\nAPI server: {theirs or 'valid'}"


_fractions = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer())
_words = st.text(max_size=6) | st.sampled_from(["auto", "/x", "latest", "a/../b", "RING_X"])
_scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9) | _fractions | _words
_names = st.sampled_from(sorted({field.name for field in every_field()})) | st.text(max_size=4)
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3), max_leaves=6
)
_DOCUMENTS = [RICH, yaml.safe_load(SHORTEST), *(m for path in GOOD for m in yaml.safe_load_all(path.read_text()))]


@given(st.sampled_from(_DOCUMENTS), st.integers(0, 2**30), st.lists(_anything, min_size=1, max_size=2), _names)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_judge_alike_what_nobody_thought_of(dry_run: DryRun, good, seed, values, name):
    manifest = copy.deepcopy(good)
    manifest["metadata"].pop("namespace", None)
    chance = random.Random(seed)
    for value in values:
        holder, key = chance.choice(list(_slots(manifest["spec"])))
        if chance.random() < 0.2 and isinstance(holder, dict):
            holder[name] = holder.pop(key)
        else:
            holder[key] = value
    _agree(manifest, dry_run)


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place where a value could be another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _slots(inner)


@pytest.mark.parametrize(
    "name, fault",
    [("n" * (names.JOB_NAME_MAX + 1), "52 characters"), ("9lives", "small letter"), ("a.b", "small letter")],
)
def test_a_name_that_pods_cannot_have_is_refused_by_both(name: str, fault: str, dry_run: DryRun):
    manifest = raw({"metadata.name": name})
    assert "metadata.name" in said(manifest)
    assert fault in dry_run.create(manifest)
