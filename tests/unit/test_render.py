"""What a job becomes: manifests in, manifests out. A new case is a new folder under cases/render."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from job_manifests import STORAGE, job
from ring_operator import names
from ring_operator.plan import machines_of, plan
from ring_operator.render import Place, Rendered, Slot, children, cluster_place, pod, render, run_config
from ring_operator.spec import TrainingJob, read_manifest
from ring_worker.contract import RunConfig

CASES = Path(__file__).parent / "cases" / "render"


def rendered(work: TrainingJob) -> Rendered:
    return render(work, plan(work, machines_of(work.spec)), cluster_place(work, "uid-1", "worker:latest"))


def as_yaml(objects: Rendered) -> str:
    """All objects, with the RunConfig inside the ConfigMap as YAML too, so that a difference can be read."""
    config = objects.config_map
    data = {key: yaml.safe_load(text) for key, text in config["data"].items()}
    shown = [{**config, "data": data}, *objects.children[1:], *objects.pods]
    return yaml.dump_all(shown, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes repeated values out instead of as aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_a_manifest_becomes_these_objects(case):
    got = as_yaml(rendered(read_manifest(CASES / case / "manifest.yaml")[0]))
    expected = (CASES / case / "expected.yaml").read_text()
    difference = "\n".join(
        difflib.unified_diff(expected.splitlines(), got.splitlines(), "expected", "got", lineterm="")
    )
    assert not difference, difference


@given(
    st.sampled_from([0, 2]),
    st.integers(1, 3),
    st.sampled_from([(), (STORAGE,)]),
    st.sampled_from(["/checkpoints", "/checkpoints/deep", "/elsewhere"]),
)
@settings(max_examples=25)
def test_every_pod_obeys_the_restricted_profile_and_can_write_where_it_must(gpus, nodes, volumes, path):
    if not volumes or not path.startswith("/checkpoints"):
        nodes = 1
    work = job({"workers": {"nodes": nodes, "gpusPerNode": gpus, "volumes": [*volumes]}, "checkpoint.path": path,
                "training.batch": 12})  # fmt: skip
    for manifest in rendered(work).pods:
        spec = manifest["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["initContainers"], *spec["containers"]):
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
            assert any((path + "/").startswith(mount + "/") for mount in writable)
            assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
            assert len({m["mountPath"] for m in container["volumeMounts"]}) == len(container["volumeMounts"])


def test_a_variable_of_the_user_stands_in_for_ours():
    env = [{"name": "MPLCONFIGDIR", "value": "/mine"}]
    for container in rendered(job({"workers.env": env})).pods[0]["spec"]["containers"]:
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))
        assert [v["value"] for v in container["env"] if v["name"] == "MPLCONFIGDIR"] == ["/mine"]


def test_gpus_are_asked_for_by_the_agent_alone():
    pod = rendered(job({"workers.gpusPerNode": 2, "parallelism.context": 2})).pods[0]
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod["spec"]["initContainers"][0]["resources"] == {}


def test_the_run_config_in_the_config_map_is_the_one_that_the_worker_reads():
    work = job({"parallelism": {"context": 4, "innerRing": 2}, "workers.processesPerNode": 4})
    planned = plan(work, machines_of(work.spec))
    place = Place("uid", "/run", "/run/checkpoints", "/cache/data", "image")
    text = render(work, planned, place).config_map["data"]["run.json"]
    assert RunConfig.from_json(text) == run_config(work, planned, place)
    config = RunConfig.from_json(text)
    assert (config.output, config.checkpoint.path, config.data.prepared) == ("/run", "/run/checkpoints", "/cache/data")
    assert (config.degrees.context, config.degrees.ring, config.degrees.inner_ring) == (4, 4, 2)


@pytest.mark.parametrize(
    "steps, given, warmup", [(10, None, 1), (330, None, 33), (5000, None, 100), (10, 0, 0), (10, 10, 10)]
)
def test_warmup_is_a_tenth_of_the_steps_unless_it_is_given(steps, given, warmup):
    work = job({"training.steps": steps, "training.schedule.warmupSteps": given})
    config = run_config(work, plan(work, machines_of(work.spec)), cluster_place(work, "u", "i"))
    assert config.training.schedule.warmup_steps == warmup


def test_rendering_twice_gives_the_same():
    work = job({"workers.volumes": [STORAGE], "workers.nodes": 2, "training.batch": 2})
    assert as_yaml(rendered(work)) == as_yaml(rendered(work))


def seat(work: TrainingJob, index: int, attempt: int = 0, avoid: tuple[str, ...] = ()) -> dict:
    planned = plan(work, machines_of(work.spec))
    return pod(work, planned, cluster_place(work, "uid-1", "worker:latest"), Slot(index, attempt, tuple(avoid)))


TWO_NODES = {"workers.volumes": [STORAGE], "workers.nodes": 2, "training.batch": 2}


def test_a_pod_by_itself_is_that_of_the_whole():
    work = job(TWO_NODES)
    assert tuple(seat(work, index) for index in range(2)) == rendered(work).pods


def test_a_pod_that_replaces_another_has_a_name_of_its_own_and_is_the_same_otherwise():
    first, third = seat(job(), 0), seat(job(), 0, attempt=2)
    assert (first["metadata"]["name"], third["metadata"]["name"]) == ("tiny-0", "tiny-0-r2")
    assert (first["spec"]["hostname"], third["spec"]["hostname"]) == ("tiny-0", "tiny-0-r2")
    assert [p["metadata"]["labels"][names.LABEL_ATTEMPT] for p in (first, third)] == ["0", "2"]
    assert {**first["spec"], "hostname": ""} == {**third["spec"], "hostname": ""}


_JOB_NAMES = st.sampled_from(["a", "a-0", "a-0-1", "a-0-r1", "a-r1", "a1"])
_SEATS = st.tuples(_JOB_NAMES, st.integers(0, 30), st.integers(0, 30))


@given(_SEATS, _SEATS)
def test_no_two_pods_of_any_jobs_share_a_name(one, other):
    assert (names.pod(*one) == names.pod(*other)) == (one == other)


def test_the_longest_name_of_a_job_leaves_room_for_its_pods():
    assert len(names.pod("n" * names.JOB_NAME_MAX, 16383, 999)) == 63


def test_nodes_to_avoid_are_those_of_the_job_and_those_of_its_failures():
    work = job({"placement.excludeNodes": ["bad", "worse"]})
    affinity = seat(work, 0, avoid=("broken", "bad"))["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [row["values"] for row in term["matchFields"]] == [["bad"], ["broken"], ["worse"]]
    assert {(row["key"], row["operator"]) for row in term["matchFields"]} == {("metadata.name", "NotIn")}
    assert "nodeAffinity" not in seat(job(), 0)["spec"]["affinity"]


def test_pods_of_a_job_never_share_a_node():
    (term,) = seat(job(), 0)["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term == {
        "labelSelector": {"matchLabels": {names.LABEL_JOB: "tiny"}},
        "topologyKey": "kubernetes.io/hostname",
    }


def test_ranks_hear_only_their_own_job_and_status_is_open_to_the_clusters_pods():
    own, status = rendered(job()).network_policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": {names.LABEL_JOB: "tiny"}}}]}
    assert status == {"from": [{"namespaceSelector": {}}], "ports": [{"port": names.STATUS_PORT, "protocol": "TCP"}]}


def test_a_disruption_budget_keeps_every_pod_where_it_is_asked_for():
    objects = rendered(job({**TWO_NODES, "workers.disruptionBudget": True}))
    assert objects.disruption_budget is not None
    assert objects.disruption_budget["spec"]["minAvailable"] == 2
    assert objects.children[-1] is objects.disruption_budget
    assert [child["kind"] for child in rendered(job()).children] == ["ConfigMap", "Service", "NetworkPolicy"]


def test_a_childs_hash_changes_with_it_and_with_nothing_else():
    def hashes(changes: dict) -> dict[str, str]:
        work = job(changes)
        made = children(work, plan(work, machines_of(work.spec)), cluster_place(work, "uid-1", "image"))
        return {child["kind"]: child["metadata"]["annotations"][names.ANNOTATION_HASH] for child in made}

    before, after = hashes({}), hashes({"training.steps": 11})
    assert before == hashes({"recovery.budget.application": 9})
    assert {kind for kind in before if before[kind] != after[kind]} == {"ConfigMap"}
    assert all(len(value) == 16 for value in before.values())
