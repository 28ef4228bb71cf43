"""The manifest: every rule and its message, nearest names, all faults at once."""

from __future__ import annotations

import pytest
import yaml

from job_manifests import SHORTEST, STORAGE, check, faults, job
from ring_operator.errors import UserError
from ring_operator.spec import (
    PRESETS,
    TrainingJob,
    architecture_of,
    check_manifest,
    every_field,
    job_of,
    load_manifest,
    read_manifest,
    unsupported,
)
from ring_operator.spec.rules import RULES
from ring_operator.spec.unsupported import CLUSTER_ONLY, GAPS


def test_the_shortest_manifest_is_enough_and_everything_else_has_a_default():
    spec = job().spec
    assert (spec.training.batch, spec.context.layout, spec.parallelism.context) == (1, "zigzag", "auto")
    assert (spec.workers.nodes, spec.checkpoint.path, spec.data.held_out.fraction) == (1, "/checkpoints", 0.02)


@pytest.mark.parametrize(
    "path, value, message, remedy",
    [
        ("context.length", "long", "long is not a whole number", "It is: Tokens of one sequence"),
        ("context.length", 1, "1 is less than the least allowed, 2", ""),
        ("context.length", 2**31, "2147483648 is more than the most allowed, 1,073,741,824", ""),
        ("context.length", True, "true is not a whole number", ""),
        ("context.length", 8.5, "8.5 is not a whole number", ""),
        ("context.layout", "zig-zag", "zig-zag is none of zigzag, striped, contiguous", "Did you mean zigzag?"),
        ("parallelism.data", "most", "most is neither a whole number from 1 to 65,536 nor auto", ""),
        ("parallelism.data", 0, "0 is neither a whole number from 1 to 65,536 nor auto", ""),
        ("training.optimizer.lr", 0, "0 is not more than 0", ""),
        ("training.optimizer.lr", ".inf", ".inf is not a number", ""),
        ("training.optimizer.betas", [0.9, 1], "1 is not less than 1", ""),
        ("training.optimizer.betas", [0.9], "is missing", ""),
        ("training.precision", "fp16", "fp16 is none of bf16, fp32", "Did you mean bf16?"),
        ("checkpoint.path", "checkpoints", "checkpoints does not have the form", "Folder of the checkpoints"),
        ("checkpoint.everyMinutes", -1, "-1 is less than the least allowed, 0", ""),
        ("model.attention.pattern", [], "has 0 entries, but needs at least 1", ""),
        ("model.attention.pattern", "full", "full is not a list", ""),
        ("model.attention.pattern", ["wndow"], "wndow is none of full, window, chunk", "Did you mean window?"),
        ("model.attention", "full", "full is not a mapping of fields", ""),
        ("data.onError", True, "true is none of stop, skip", ""),
        ("data.tokenizer", "", "is empty", ""),
        ("data.tokenizer", "x" * 5000, "has more than the 4,096 characters allowed", ""),
        ("workers.sharedMemory", "much", "much does not have the form", ""),
        ("workers.nodeSelector", {"disk": True}, "true is not a string; put it in quotes", ""),
        ("workers.nodeSelector", {"a b": "c"}, "a b is not a name that can stand here", ""),
        ("workers.nodeSelector", {"k" * 64: "c"}, "is not a name that can stand here", ""),
        ("workers.priorityClassName", "a..b", "a..b does not have the form", ""),
        ("workers.image", "two words", "two words does not have the form", ""),
        ("workers.resources", {"limits": {"cpu": 0.5}}, "0.5 is not a string; put it in quotes", ""),
        ("workers.resources", {"limits": {"cpu": 2**63}}, "is not a string; put it in quotes", ""),
        ("metadata.name", "Big_Name", "Big_Name does not have the form", ""),
        ("metadata.name", "n" * 53, "has more than the 52 characters allowed", ""),
        ("placement.levels", "rack", "rack is not a list", "Node label keys"),
        ("model.attention.softCap", 0, "0 is not more than 0", "Bound c of the scores"),
        ("parallelism.innerRing", 0, "0 is less than the least allowed, 1", ""),
        ("training.recompute", "outputs", "outputs is none of auto, none, attention, output", "Did you mean output?"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_bound(path, value, message, remedy):
    found = faults({path: value})
    assert any(message in said and remedy in way_out for _, said, way_out in found), found
    assert all(path in place for place, _, _ in found)


_GPU_CLUSTER = {"workers.gpusPerNode": 8, "workers.nodes": 2, "workers.volumes": [STORAGE]}
_ODD_HEADS = {"layers": 2, "hidden": 64, "heads": 4, "kvHeads": 3, "feedForward": 8}


@pytest.mark.parametrize(
    "changes, path, message, remedy",
    [
        (
            {"model": {"preset": "tiny-1m", "hf": "/m"}},
            "model",
            "preset and hf given, but it takes exactly one of preset, architecture, hf",
            "Give one of",
        ),
        ({"model": {}}, "model", "none given, but it takes exactly one of", "Give one of"),
        (
            {"model": {"architecture": _ODD_HEADS}},
            "model.architecture.kvHeads",
            "3 does not divide heads 4",
            "Take one of 1, 2, 4.",
        ),
        (
            {"model": {"architecture": {**_ODD_HEADS, "kvHeads": 2, "hidden": 66}}},
            "model.architecture.hidden",
            "66 is not divisible by heads 4",
            "Set headDim, or take hidden 64.",
        ),
        (
            {"model": {"architecture": {**_ODD_HEADS, "kvHeads": 2, "headDim": 15}}},
            "model.architecture.headDim",
            "15 is odd, but rotary positions turn pairs",
            "Take 16.",
        ),
        (
            {"context": {"length": 8192, "rope": {"type": "yarn", "factor": 2, "originalLength": 2048}}},
            "context.rope.factor",
            "2 x originalLength 2,048 = 4,096 positions, but context.length is 8,192",
            "Raise factor to 4.",
        ),
        (
            {"context.rope": {"type": "yarn", "factor": 2}},
            "context.rope.originalLength",
            "is missing; yarn needs it",
            "Give the length trained on",
        ),
        ({"context.rope": {"factor": 2}}, "context.rope", "have no effect with type default", "Set type"),
        (
            {"parallelism": {"context": 4, "ulysses": 3}},
            "parallelism.ulysses",
            "3 does not divide context 4",
            "Take one of 1, 2, 4.",
        ),
        (
            {"parallelism": {"context": 8, "ulysses": 8}},
            "parallelism.ulysses",
            "8 does not divide heads 4",
            "Take one of 1, 2, 4 that divides context.",
        ),
        (
            {
                "model": {"architecture": {"layers": 1, "hidden": 48, "heads": 12, "kvHeads": 4, "feedForward": 8}},
                "parallelism": {"context": 6, "ulysses": 6},
            },
            "parallelism.ulysses",
            "6 neither divides kvHeads 4 nor is a multiple of them",
            "Take one of 1, 2, 4, 12 that divides context.",
        ),
        (
            {"parallelism": {"context": 8, "ulysses": 2, "innerRing": 3}},
            "parallelism.innerRing",
            "3 does not divide the ring, context 8 / ulysses 2 = 4",
            "Take one of 1, 2, 4, or leave it out.",
        ),
        (
            {"workers.gpusPerNode": 2, "workers.processesPerNode": 3},
            "workers.processesPerNode",
            "3 processes beside gpusPerNode 2",
            "Leave processesPerNode out",
        ),
        ({"workers.env": [{"name": "RANK", "value": "1"}]}, "workers.env[0].name", "RANK is set by", "Take another"),
        ({"workers.env": [{"name": "RING_POD", "value": "1"}]}, "workers.env[0].name", "is set by", "Take another"),
        (
            {"workers.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
            "workers.env[1].name",
            "A is given more than once",
            "Keep one",
        ),
        ({"workers.env": [{"name": "A"}]}, "workers.env[0]", "exactly one of value, valueFrom", "Give one"),
        (
            {"workers.env": [{"name": "A", "valueFrom": {}}]},
            "workers.env[0].valueFrom",
            "exactly one of secretKeyRef, configMapKeyRef",
            "Give one",
        ),
        (
            {"workers.volumes": [{"name": "a", "mountPath": "/a"}]},
            "workers.volumes[0]",
            "exactly one of persistentVolumeClaim, emptyDir, configMap, secret, projected",
            "Give one",
        ),
        (
            {"workers.volumes": [STORAGE, {**STORAGE, "mountPath": "/b"}]},
            "workers.volumes[1].name",
            "storage is that of volumes[0] already",
            "Take another one.",
        ),
        (
            {"workers.volumes": [STORAGE, {**STORAGE, "name": "b", "mountPath": "/checkpoints/"}]},
            "workers.volumes[1].mountPath",
            "/checkpoints is that of volumes[0] already",
            "Take another one.",
        ),
        (
            {"workers.volumes": [{**STORAGE, "mountPath": "/dev/shm/x"}]},
            "workers.volumes[0].mountPath",
            "/dev/shm/x collides with /dev",
            "Take another path.",
        ),
        (
            {"workers.volumes": [{**STORAGE, "mountPath": "/a/../b"}]},
            "workers.volumes[0].mountPath",
            "/a/../b has //, . or .. in it",
            "Write the path out.",
        ),
        (
            {"workers.volumes": [{**STORAGE, "name": "ring-tmp"}]},
            "workers.volumes[0].name",
            "names with ring- are the operator's own",
            "Take another name.",
        ),
        (
            {"workers.volumes": [{"name": "p", "mountPath": "/p", "projected": {"sources": [{}]}}]},
            "workers.volumes[0].projected.sources[0]",
            "exactly one of secret, configMap",
            "Give one",
        ),
        (
            {"workers.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "workers.tolerations[0].value",
            "no meaning with operator Exists",
            "Leave it out",
        ),
        ({"workers.tolerations": [{"value": "b"}]}, "workers.tolerations[0].key", "is missing", "Give the key."),
        (
            {"workers.tolerations": [{"key": "a", "tolerationSeconds": 3}]},
            "workers.tolerations[0].tolerationSeconds",
            "only with effect NoExecute",
            "Leave it out.",
        ),
        (
            {**_GPU_CLUSTER, "workers.resources": {"limits": {"nvidia.com/gpu": 8}}},
            "workers.resources.limits[nvidia.com/gpu]",
            "nvidia.com/gpu is set by workers.gpusPerNode",
            "Leave it out",
        ),
        (
            {"workers.rdma": {"resource": "rdma/hca"}, "workers.resources": {"requests": {"rdma/hca": 1}}},
            "workers.resources.requests[rdma/hca]",
            "rdma/hca is set by workers.rdma.count",
            "Leave it out",
        ),
        (
            {"data.source": {"path": "a", "builtin": "python-stdlib"}},
            "data.source",
            "path and builtin given, but it takes exactly one of",
            "Give one of",
        ),
        (
            {"data.source": {"jsonl": {"path": "a"}, "include": ["*.py"]}},
            "data.source",
            "include and exclude choose files of path or builtin",
            "Leave them out.",
        ),
        ({"data.prepared": "/a//x"}, "data.prepared", "/a//x has //, . or .. in it", "Write the path out."),
        ({"data.prepared": "/tmp/x"}, "data.prepared", "/tmp/x collides with /tmp", "Take another path."),
        (
            {"data.heldOut": {"fraction": 0}},
            "evaluation.heldOut",
            "true, but data.heldOut.fraction is 0",
            "Set it to false",
        ),
        (
            {"evaluation.samplePrompt": "a"},
            "evaluation.samplePrompt",
            "no effect with sampleTokens 0",
            "Set sampleTokens",
        ),
        (
            {"training.schedule": {"warmupSteps": 11}},
            "training.schedule.warmupSteps",
            "11 is more than steps 10",
            "Lower it to 1.",
        ),
        ({"checkpoint.resume": "newest"}, "checkpoint.resume", "'newest' is neither latest nor none", "Take latest"),
        ({"checkpoint.path": "/"}, "checkpoint.path", "/ collides with /etc/ring", "Take another path."),
        ({"checkpoint.path": "/a/./b"}, "checkpoint.path", "has //, . or .. in it", "Write the path out."),
        (
            {"workers.volumes": [{**STORAGE, "readOnly": True}]},
            "checkpoint.path",
            "/checkpoints is in volume storage, which cannot be written",
            "Mount a persistentVolumeClaim over /checkpoints",
        ),
        (
            {"workers.nodes": 3},
            "checkpoint.path",
            "/checkpoints is in no volume, but 3 pods must share it",
            "Mount a persistentVolumeClaim",
        ),
        (
            {"workers.nodes": 3, "workers.volumes": [{"name": "e", "mountPath": "/checkpoints", "emptyDir": {}}]},
            "checkpoint.path",
            "in volume e, which each pod has for itself, but 3 pods must share it",
            "Mount a persistentVolumeClaim",
        ),
        (
            {"workers.nodes": 3, "workers.volumes": [STORAGE], "data.prepared": "/data"},
            "data.prepared",
            "/data is in no volume, but 3 pods must share it",
            "Mount a persistentVolumeClaim over /data",
        ),
        (
            {
                "workers.volumes": [{"name": "c", "mountPath": "/c", "configMap": {"name": "x"}}],
                "data.prepared": "/c/d",
            },
            "data.prepared",
            "/c/d is in volume c, which cannot be written",
            "Mount a persistentVolumeClaim over /c/d",
        ),
        (
            {"model": {"architecture": {"layers": 1, "hidden": 8, "heads": 2, "feedForward": 8, "vocabulary": 256}}},
            "model.architecture.vocabulary",
            "256, but the tokenizer bytes has 257 tokens",
            "Raise it to 257",
        ),
        ({"model.attention": {"window": 9}}, "model.attention.window", "9 has no effect", "put window into"),
        (
            {"model.attention": {"pattern": ["window"], "chunk": 9}},
            "model.attention.chunk",
            "9 has no effect",
            "put chunk into",
        ),
        (
            {"model.attention": {"pattern": ["full", "chunk"], "globalTokens": 16}},
            "model.attention.globalTokens",
            "16 has no effect: no layer of the pattern is of the kind window",
            "put window into",
        ),
        (
            {"training.probe": {"rows": 8}},
            "training.probe.rows",
            "8 has no effect with everySteps 0",
            "set everySteps",
        ),
        ({"context.stripe": 8}, "context.stripe", "8 has no effect with layout zigzag", "set layout to striped"),
        (
            {"training.schedule": {"kind": "constant", "finalRatio": 0.5}},
            "training.schedule.finalRatio",
            "0.5 has no effect with kind constant",
            "take kind cosine",
        ),
    ],
)
def test_a_broken_rule_says_the_field_the_numbers_and_the_way_out(changes, path, message, remedy):
    found = faults(changes)
    assert any(p == f"spec.{path}" and message in m and remedy in r for p, m, r in found), found


def test_every_rule_is_broken_by_a_row_above():
    """A rule without a row would be one whose message nobody has read."""
    rows = test_a_broken_rule_says_the_field_the_numbers_and_the_way_out.pytestmark[0].args[1]
    broken = set()
    for changes, *_ in rows:
        sections = _sections(changes)
        broken |= {
            rule.__name__
            for rule in RULES
            if all(n in sections for n in _wanted(rule)) and list(rule(**{n: sections[n] for n in _wanted(rule)}))
        }
    assert broken == {rule.__name__ for rule in RULES}


def _wanted(rule):
    return list(rule.__annotations__.keys() - {"return"})


def _sections(changes):
    from job_manifests import sets
    from ring_operator.spec.load import _parse_override, _sound_sections, _write

    raw = yaml.safe_load(SHORTEST)
    for change in sets(changes):
        parsed = _parse_override(change)
        _write(raw, parsed.place, parsed.value)
    return _sound_sections(raw)


@pytest.mark.parametrize(
    "place, message, remedy",
    [
        ("context.lenght", "is not a field", "Did you mean length?"),
        ("contxt", "is not a field", "Did you mean context?"),
        ("context.gpus_per_node", "is not a field", "The fields here are length, layout, stripe, rope."),
        ("workers.gpus_per_node", "is not a field", "Did you mean gpusPerNode?"),
        ("training.learningRate", "is not a field", "The fields here are steps, batch"),
        ("steps", "is not a field here", "Did you mean spec.training.steps?"),
        ("training.lr", "is not a field here", "Did you mean spec.training.optimizer.lr?"),
        ("workers.volumes", "is not a field", "Did you mean mountPath?"),
    ],
)
def test_an_unknown_field_names_the_nearest_one(place, message, remedy):
    value = [{**STORAGE, "mountpath": "x"}] if place == "workers.volumes" else 1
    assert any(message == m and remedy in r for _, m, r in faults({place: value})), faults({place: value})


def test_all_faults_of_all_documents_come_at_once_each_with_its_line():
    text = SHORTEST.replace("length: 8192", "lenght: 8192") + "---\n" + SHORTEST.replace("steps: 10", "steps: 0")
    found = check_manifest(text, "two.yaml").faults
    assert [(f.where, f.path) for f in found] == [
        ("two.yaml:6", "spec.context.length"),
        ("two.yaml:6", "spec.context.lenght"),
        ("two.yaml:19", "spec.training.steps"),
    ]


def test_rules_of_sound_sections_run_beside_faults_of_others():
    found = faults({"training.steps": "many", "data.source": {}, "context.rope": {"factor": 3}})
    assert {path for path, _, _ in found} == {"spec.training.steps", "spec.data.source", "spec.context.rope"}


def test_another_kind_of_object_is_one_fault_and_not_a_list_of_missing_fields():
    found = check_manifest("apiVersion: ringtraining.dev/v1alpha1\nkind: Pod\n", "pod.yaml").faults
    assert [str(f) for f in found] == ["pod.yaml:2: kind: Pod is not RingTrainingJob\n  Take RingTrainingJob."]


@pytest.mark.parametrize(
    "name, path",
    [
        ("<<x", "[<<x]"),
        ("<word>", "[<word>]"),
        ("[key]", "[[key]]"),
        ("", "[]"),
        ("a.b", "[a.b]"),
        ("\n", "[?]"),
        ("ä", "ä"),
    ],
)
def test_a_field_of_any_name_is_refused_by_it(name, path):
    raw = {**yaml.safe_load(SHORTEST), name: 1}
    found = check_manifest(yaml.safe_dump(raw, allow_unicode=True), "f").faults
    assert [(f.path, f.message) for f in found] == [(path, "is not a field")]


def test_linear_stretching_needs_no_original_length():
    assert check({"context.rope": {"type": "linear", "factor": 4}}).faults == ()


def test_what_attention_can_do_is_asked_for_without_a_fault():
    found = check(
        {
            "model.attention": {"pattern": ["window", "full"], "globalTokens": 16, "sinks": True, "softCap": 30},
            "parallelism": {"context": 8, "ulysses": 2, "innerRing": 2},
            "training": {
                "steps": 5, "recompute": "late", "ringGradients": "bf16", "probe": {"everySteps": 2, "rows": 8}
            },
        }
    )  # fmt: skip
    assert found.faults == ()
    assert unsupported(found.jobs[0]) == ()


def test_two_jobs_of_one_name_are_refused():
    found = check_manifest(f"{SHORTEST}---\n{SHORTEST}", "two.yaml").faults
    assert [f.message for f in found] == ["tiny is the name of the job at two.yaml:3 too"]


def test_a_job_comes_back_as_it_went_out():
    first = job({"model.attention.pattern": ["chunk", "full"], "workers.volumes": [STORAGE], "parallelism.data": 2})
    again = job_of(first.model_dump(by_alias=True))
    assert again == first
    assert TrainingJob.model_validate_json(first.model_dump_json(by_alias=True)) == first


def test_an_object_of_the_api_server_is_read_without_what_the_server_added():
    raw = job().model_dump(by_alias=True, exclude_none=True)
    raw["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [], "creationTimestamp": "now"}
    assert job_of({**raw, "status": {"conditions": []}}) == job()


def test_an_object_that_is_no_job_is_refused_with_every_fault():
    with pytest.raises(UserError, match=r"^apiVersion: is missing"):
        job_of({"metadata": {"name": "x"}})


def test_a_field_left_empty_is_a_field_left_out():
    assert load_manifest(SHORTEST.replace("workers: {gpusPerNode: 0}", "workers:\n    gpusPerNode: 0\n    env:"))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_obey_the_rules_for_architectures(preset):
    shape = PRESETS[preset].model_dump(by_alias=True, exclude_none=True)
    assert architecture_of(job({"model": {"architecture": shape}}).spec.model) == PRESETS[preset]


@pytest.mark.parametrize(
    "override, read, value",
    [
        ("training.steps=5", lambda s: s.training.steps, 5),
        ("spec.training.steps=5", lambda s: s.training.steps, 5),
        ("training.optimizer.lr=1e-3", lambda s: s.training.optimizer.lr, 1e-3),
        ("model.attention.pattern=[chunk, full]", lambda s: s.model.attention.pattern, ("chunk", "full")),
        ("evaluation.sampleTokens=1_000", lambda s: s.evaluation.sample_tokens, 1000),
        ("data.source={path: /text}", lambda s: s.data.source.path, "/text"),
        ("workers.image=a.b/c:d=e", lambda s: s.workers.image, "a.b/c:d=e"),
        ("parallelism.context=", lambda s: s.parallelism.context, "auto"),
    ],
)
def test_set_writes_into_the_manifest(override, read, value):
    assert read(load_manifest(SHORTEST, overrides=[override])[0].spec) == value


@pytest.mark.parametrize(
    "override, said",
    [
        ("training.steps", "--set training.steps: is not path=value"),
        ("=5", "--set =5: is not path=value"),
        ("training.step=5", "spec.training.step: is not a field"),
        ("workers.volumes[3].name=x", "spec.workers.volumes[3]"),
        ("training.steps=[", "--set training.steps=[:1: not YAML"),
        ("training.steps=0", "--set training.steps=0: spec.training.steps: 0 is less than"),
        ("data={}", "--set data={}: spec.data.source: is missing"),
        ("suspend=maybe", "--set suspend=maybe: spec.suspend: maybe is neither"),
        ("training..steps=5", "--set training..steps=5: training..steps is not a path of a field"),
        ("data.source.include[0=x", "data.source.include[0 is not a path of a field"),
        ("data.source.include[0]=*.txt", "put the word in quotes that YAML sees"),
    ],
)
def test_a_bad_set_is_refused(override, said):
    assert said in str([str(f) for f in check_manifest(SHORTEST, overrides=[override]).faults])


def test_a_file_that_cannot_be_read_is_an_error_of_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: Käse".encode("latin-1"))
    for name, reason in (("nowhere.yaml", "No such file"), ("latin.yaml", "not UTF-8 at byte 7"), ("", "directory")):
        with pytest.raises(UserError, match=reason) as caught:
            read_manifest(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def test_every_field_has_a_description_a_type_and_the_style_of_the_manifest():
    for field in every_field():
        assert field.description.endswith("."), field.path
        assert "None" not in field.type, field.path
        assert "_" not in field.name, field.path


def test_every_number_string_list_and_map_is_bounded():
    unbounded = [
        field.path
        for field in every_field()
        if not field.values
        and ("number" in field.type or field.type in ("string", "mapping of strings") or field.type.startswith("list"))
        and not any("at most" in bound or "less than" in bound for bound in field.bounds)
        and field.path != "spec.training.optimizer.betas"
    ]
    assert unbounded == []


_NOT_BUILT = {
    "parallelism.tensor": {"parallelism.tensor": 8},
    "parallelism.pipeline": {"parallelism.pipeline": 4},
    "model.hf": {"model": {"hf": "/models/llama"}},
    "data.source.parquet": {"data.source": {"parquet": {"path": "/p"}}},
    "data.source.tokens": {"data.source": {"tokens": {"path": "/p"}}},
    "training.offload": {"training.offload": "host"},
    "training.schedule.kind": {"training.schedule.kind": "wsd"},
    "evaluation.needle": {"evaluation.needle": {"lengths": [1024]}},
    "placement": {"placement": {"mode": "scheduler", "excludeNodes": ["n1"]}},
    "gang": {"gang.queue": "team-a"},
}
_FOR_A_CLUSTER = {
    "placement.excludeNodes": {"placement.excludeNodes": ["n1"]},
    "recovery.excludeNodeAfter": {"recovery.excludeNodeAfter": 5},
    "workers.disruptionBudget": {"workers.disruptionBudget": True},
    "managedBy": {"managedBy": "example.org/other"},
    "suspend": {"suspend": True},
    "activeDeadlineSeconds": {"activeDeadlineSeconds": 60},
    "ttlSecondsAfterFinished": {"ttlSecondsAfterFinished": 60},
}


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.path)
def test_what_is_not_built_yet_is_valid_and_refused_by_name(gap):
    found = unsupported(job(_NOT_BUILT[gap.path]))
    assert [f.path for f in found] == [f"spec.{gap.path}"]
    assert found[0].message.endswith("is not built yet")
    assert found[0].remedy


@pytest.mark.parametrize("gap", CLUSTER_ONLY, ids=lambda gap: gap.path)
def test_what_only_an_operator_does_is_refused_on_this_machine_alone(gap):
    work = job(_FOR_A_CLUSTER[gap.path])
    found = unsupported(work, machine=True)
    assert [f.path for f in found] == [f"spec.{gap.path}"]
    assert found[0].message.endswith("is for jobs on a cluster")
    assert found[0].remedy
    assert unsupported(work) == ()


def test_the_shortest_manifest_asks_for_nothing_that_is_not_built():
    assert unsupported(job(), machine=True) == ()
    assert check({}).faults == ()
