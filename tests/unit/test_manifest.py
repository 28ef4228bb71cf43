"""The manifest: every rule and its message, nearest names, all faults at once."""

from __future__ import annotations

import pytest
import yaml

from job_manifests import SHORTEST, STORAGE, check, faults, job, raw
from manifest_cases import BROKEN_RULES, OUT_OF_BOUNDS, UNKNOWN_FIELDS, unknown_field
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


@pytest.mark.parametrize("path, value, message, remedy", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_refused_with_the_bound(path, value, message, remedy):
    found = faults({path: value})
    assert any(message in said and remedy in way_out for _, said, way_out in found), found
    assert all(path in place for place, _, _ in found)


@pytest.mark.parametrize("changes, path, message, remedy", BROKEN_RULES)
def test_a_broken_rule_says_the_field_the_numbers_and_the_way_out(changes, path, message, remedy):
    found = faults(changes)
    assert any(p == f"spec.{path}" and message in m and remedy in r for p, m, r in found), found


def test_every_rule_is_broken_by_a_row_above():
    """A rule without a row would be one whose message nobody has read."""
    broken = set()
    for changes, *_ in BROKEN_RULES:
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
    from ring_operator.spec.load import _sound_sections

    return _sound_sections(raw(changes))


@pytest.mark.parametrize("place, message, remedy", UNKNOWN_FIELDS)
def test_an_unknown_field_names_the_nearest_one(place, message, remedy):
    found = faults(unknown_field(place))
    assert any(message == m and remedy in r for _, m, r in found), found


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
    "gang": {"gang.queue": "team-a"},
}
_FOR_A_CLUSTER = {
    "placement": {"placement": {"mode": "scheduler", "excludeNodes": ["n1"]}},
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
