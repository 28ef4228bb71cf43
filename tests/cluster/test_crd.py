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

from clusterkit.cluster import Cluster, fresh_namespace
from clusterkit.crd import install_crd
from clusterkit.dry_run import DryRun
from clusterkit.kubectl import Kubectl, KubectlError
from job_manifests import SHORTEST, STORAGE, raw
from manifest_cases import BROKEN_RULES, OUT_OF_BOUNDS, UNKNOWN_FIELDS, unknown_field
from ring_operator import names
from ring_operator.crd import definition
from ring_operator.crd.changes import FREE, fixed_fields
from ring_operator.errors import UserError
from ring_operator.spec import every_field, job_of
from schema_walk import nodes

ROOT = Path(__file__).parents[2]
GOOD = [
    *(ROOT / "manifests" / "samples").glob("*.yaml"),
    *(ROOT / "tests" / "unit" / "cases").rglob("manifest.yaml"),
]


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Kubectl:
    """The CRD, ready to be used."""
    install_crd(cluster.kubectl)
    return cluster.kubectl


@pytest.fixture(scope="module")
def where(installed: Kubectl) -> Iterator[str]:
    with fresh_namespace(installed) as name:
        yield name


@pytest.fixture(scope="module")
def server(cluster: Cluster, where: str) -> Iterator[DryRun]:
    with DryRun(cluster.kubeconfig, where) as asked:
        yield asked


def said(manifest: dict[str, Any]) -> str:
    """What `ringctl` says of it, or nothing."""
    try:
        job_of(copy.deepcopy(manifest))
    except UserError as error:
        return str(error)
    return ""


def test_the_server_finds_nothing_wrong_with_the_crd_itself(installed: Kubectl):
    conditions = installed.json("get", "crd", definition()["metadata"]["name"])["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_good_manifest_is_good_to_both(path: Path, server: DryRun):
    for manifest in yaml.safe_load_all(path.read_text()):
        manifest["metadata"].pop("namespace", None)
        assert said(manifest) == ""
        assert server.create(manifest) == ""


@pytest.mark.parametrize("path, value, message, remedy", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_bad_to_both(path: str, value: Any, message: str, remedy: str, server: DryRun):
    manifest = raw({path: value})
    assert message in said(manifest)
    assert path.split(".")[-1] in server.create(manifest)


@pytest.mark.parametrize("changes, path, message, remedy", BROKEN_RULES)
def test_a_broken_rule_is_broken_to_both(changes: dict[str, Any], path: str, message: str, remedy: str, server: DryRun):
    manifest = raw(changes)
    assert message in said(manifest)
    answer = server.create(manifest)
    several = any(words in message for words in ("more than once", "already", "is set by workers"))
    assert f"spec.{_holder(path) if several else path}" in answer, answer


def _holder(path: str) -> str:
    """The list or the mapping around what is in brackets: the server blames it where its entries are at odds."""
    return path.partition("[")[0].removesuffix(".limits").removesuffix(".requests")


@pytest.mark.parametrize("place, message, remedy", UNKNOWN_FIELDS)
def test_an_unknown_field_is_unknown_to_both(place: str, message: str, remedy: str, server: DryRun):
    manifest = raw(unknown_field(place))
    assert message in said(manifest)
    assert "unknown field" in server.create(manifest)


DIFFERENCES = {
    "labels and annotations are bounded by the server's own rules, and not in number": {
        "metadata.labels": {f"label-{i}": "x" for i in range(65)}
    },
    "a whole number may be written as 8192.0, and is stored as 8192": {"context.length": 8192.0},
}
"""Valid to the server and not to `ringctl`: each with the reason. The operator checks again, and says so on the job."""


@pytest.mark.parametrize("why", DIFFERENCES)
def test_what_only_ringctl_and_the_operator_refuse(why: str, server: DryRun):
    manifest = raw(DIFFERENCES[why])
    assert said(manifest)
    assert server.create(manifest) == ""


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


def test_the_rich_manifest_is_good_to_both(server: DryRun):
    assert said(RICH) == ""
    assert server.create(RICH) == ""


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
def test_both_draw_the_same_line_round_every_field(path: str, server: DryRun):
    parts = path.replace("[]", ".[]").replace("{}", ".{}").split(".")
    for value in _edges(FIELDS[path]):
        _agree(_with(RICH, parts, value), server)


def _agree(manifest: dict[str, Any], server: DryRun) -> None:
    mine, theirs = said(manifest), server.create(manifest)
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
def test_both_judge_alike_what_nobody_thought_of(server: DryRun, good, seed, values, name):
    manifest = copy.deepcopy(good)
    manifest["metadata"].pop("namespace", None)
    chance = random.Random(seed)
    for value in values:
        holder, key = chance.choice(list(_slots(manifest["spec"])))
        if chance.random() < 0.2 and isinstance(holder, dict):
            holder[name] = holder.pop(key)
        else:
            holder[key] = value
    _agree(manifest, server)


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place where a value could be another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _slots(inner)


CHANGES: dict[str, Any] = {
    "model": {"attention": {"sinks": True}},
    "context": {"length": 16384},
    "parallelism": {"data": 1},
    "workers": {"sharedMemory": "1Gi"},
    "placement.mode": {"mode": "scheduler"},
    "placement.levels": {"levels": ["example.org/rack"]},
    "placement.within": {"within": {"level": "rack"}},
    "gang": {"queue": "team-a"},
    "data": {"seed": 1},
    "training": {"steps": 11},
    "checkpoint": {"keep": 4},
    "evaluation": {"sequences": 5},
    "recovery": {"stallTimeoutSeconds": 100},
    "placement.excludeNodes": {"excludeNodes": ["n1"]},
    "suspend": True,
    "activeDeadlineSeconds": 5,
    "ttlSecondsAfterFinished": 5,
}


@pytest.fixture(scope="module")
def running(installed: Kubectl, where: str) -> str:
    """Name of a job that is not suspended."""
    installed.within(where).create(raw({"metadata.name": "running"}))
    return "running"


@pytest.fixture(scope="module")
def suspended(installed: Kubectl, where: str) -> str:
    installed.within(where).create(raw({"metadata.name": "suspended", "suspend": True}))
    return "suspended"


def _change(field: str) -> dict[str, Any]:
    return {"spec": {field.partition(".")[0]: CHANGES[field]}}


@pytest.mark.parametrize("field", fixed_fields())
def test_a_job_that_runs_keeps_its_shape(field: str, server: DryRun, running: str, suspended: str):
    answer = server.change(running, _change(field))
    assert f"spec.{field}: Forbidden: may not be changed while the job runs. Suspend the job" in answer
    assert server.change(running, {"spec": {**_change(field)["spec"], "suspend": True}}) == answer
    assert server.change(suspended, _change(field)) == ""
    assert server.change(suspended, {"spec": {**_change(field)["spec"], "suspend": False}}) == ""


@pytest.mark.parametrize("field", FREE)
def test_some_things_may_change_at_any_time(field: str, server: DryRun, running: str):
    assert server.change(running, _change(field)) == ""


def test_a_job_never_changes_its_controller(server: DryRun, running: str, suspended: str):
    for name in (running, suspended):
        answer = server.change(name, {"spec": {"managedBy": "example.org/other"}})
        assert "spec.managedBy: Forbidden: may never be changed" in answer


STATUS = {
    "state": "Running",
    "ringsReady": "2/2",
    "plan": {"data": 2, "pipeline": 1, "context": 64, "tensor": 1, "ulysses": 1, "worldSize": 128, "nodes": 16}
    | {"ranksPerNode": 8},
    "progress": {"step": 41, "tokensPerSecond": 1234.5, "efficiency": 0.93, "loss": 2.25},
    "restarts": {"total": 3},
    "epoch": 4,
    "conditions": [
        {"type": "Planned", "status": "True", "reason": "Planned", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Running", "status": "True", "reason": "Training", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ],
}


def test_kubectl_get_reads_well(installed: Kubectl, where: str):
    kubectl = installed.within(where)
    kubectl.create(raw({"metadata.name": "shown"}))
    patch = yaml.safe_dump({"status": STATUS})
    kubectl("patch", "rtj", "shown", "--subresource=status", "--type=merge", f"--patch={patch}")
    header, row = kubectl("get", "rtj", "shown", "--output=wide").splitlines()
    assert header.split() == (
        ["NAME", "STATE", "RINGS", "CP", "STEP", "TOKENS/S", "EFFICIENCY", "RESTARTS", "AGE", "LOSS", "EPOCH", "REASON"]
    )
    name, state, rings, cp, step, rate, efficiency, restarts, _, loss, epoch, reason = row.split()
    assert (name, state, rings, cp, step, rate) == ("shown", "Running", "2/2", "64", "41", "1234.5")
    assert (efficiency, restarts, loss, epoch, reason) == ("0.93", "3", "2.25", "4", "Training")
    assert len(kubectl("get", "rtj", "shown").splitlines()[0].split()) == 9
    assert "ringtrainingjob" in kubectl("get", "ring", "--output=name")
    assert "Tokens of one sequence" in kubectl("explain", "rtj.spec.context.length")


def test_a_status_out_of_bounds_is_refused(installed: Kubectl, where: str, running: str):
    kubectl = installed.within(where)
    for bad in ({"epoch": -1}, {"state": "x" * 65}, {"conditions": [{"type": "A"}]}):
        with pytest.raises(KubectlError, match="status"):
            kubectl(
                "patch",
                "rtj",
                running,
                "--subresource=status",
                "--type=merge",
                f"--patch={yaml.safe_dump({'status': bad})}",
            )


def test_two_managers_share_the_variables_of_a_job(installed: Kubectl, where: str):
    """A list that is told apart by names: each manager keeps its own entries."""
    kubectl = installed.within(where)
    for manager, variable in (("one", "A"), ("two", "B")):
        manifest = raw({"metadata.name": "shared", "suspend": True, "workers.env": [{"name": variable, "value": "x"}]})
        kubectl("apply", "--server-side", f"--field-manager={manager}", "--filename=-", stdin=yaml.safe_dump(manifest))
    env = kubectl.json("get", "rtj", "shared")["spec"]["workers"]["env"]
    assert [variable["name"] for variable in env] == ["A", "B"]


def test_the_server_fills_in_what_the_models_would(installed: Kubectl, where: str, running: str):
    stored = installed.within(where).json("get", "rtj", running)
    assert stored["spec"]["recovery"]["budget"] == {"application": 3, "infrastructure": 20, "noProgress": 3}
    assert job_of(stored).spec == job_of(raw()).spec


@pytest.mark.parametrize(
    "name, fault",
    [("n" * (names.JOB_NAME_MAX + 1), "52 characters"), ("9lives", "small letter"), ("a.b", "small letter")],
)
def test_a_name_that_pods_cannot_have_is_refused_by_both(name: str, fault: str, server: DryRun):
    manifest = raw({"metadata.name": name})
    assert "metadata.name" in said(manifest)
    assert fault in server.create(manifest)
