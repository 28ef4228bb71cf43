"""What a job becomes: manifests in, manifests out. A new case is a new folder under cases/render."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from job_manifests import STORAGE, job
from ring_operator.plan import machines_of, plan
from ring_operator.render import Place, Rendered, cluster_place, render, run_config
from ring_operator.spec import TrainingJob, read_manifest
from ring_worker.contract import RunConfig

CASES = Path(__file__).parent / "cases" / "render"


def rendered(work: TrainingJob) -> Rendered:
    return render(work, plan(work, machines_of(work.spec)), cluster_place(work, "uid-1", "worker:latest"))


def as_yaml(objects: Rendered) -> str:
    """All objects, with the RunConfig inside the ConfigMap as YAML too, so that a difference can be read."""
    config = objects.config_map
    data = {key: yaml.safe_load(text) for key, text in config["data"].items()}
    return yaml.dump_all([{**config, "data": data}, objects.service, *objects.pods], Dumper=_Plain, sort_keys=False)


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
    for pod in rendered(work).pods:
        spec = pod["spec"]
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
