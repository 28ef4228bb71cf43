"""The samples: every one is valid, plans, and says in comments what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ring_operator.cli.common import check_file
from ring_operator.plan import machines_of, plan
from ring_operator.render import cluster_place, render, run_config
from ring_operator.spec import TrainingJob
from ring_worker.data.tokenizers import BytesTokenizer
from ring_worker.model import parameter_count

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


def jobs(sample: Path) -> tuple[TrainingJob, ...]:
    checked = check_file(str(sample))
    assert checked.faults == ()
    return checked.jobs


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid_plans_and_renders(sample):
    for job in jobs(sample):
        planned = plan(job, machines_of(job.spec, gpus_per_node=1))
        assert len(render(job, planned, cluster_place(job, "uid", "image")).pods) == job.spec.workers.nodes


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_the_weights_in_a_plan_are_those_of_the_workers_model(sample):
    for job in (job for job in jobs(sample) if job.spec.data.tokenizer == "bytes"):
        planned = plan(job, machines_of(job.spec))
        model = run_config(job, planned, cluster_place(job, "uid", "image")).model
        assert planned.work.weights == parameter_count(model, BytesTokenizer.vocabulary)
        if sample.stem == "quickstart":
            assert f"{planned.work.weights:,} weights" in sample.read_text()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_named_like_its_file_and_begins_with_what_it_shows(sample):
    assert [job.name for job in jobs(sample)] == [sample.stem]
    assert sample.read_text().startswith("# ")


def test_the_quickstart_explains_every_line():
    lines = (ROOT / "manifests" / "samples" / "quickstart.yaml").read_text().splitlines()
    silent = [line for line in lines if ":" in line and "#" not in line and not line.rstrip().endswith(":")]
    known = ("apiVersion", "kind", "layers", "steps", "warmupSteps", "everySteps")
    assert [line for line in silent if line.split(":")[0].strip() not in known] == []


def test_the_quickstart_reads_4096_tokens_or_more_over_one_ring_of_four():
    job = jobs(ROOT / "manifests" / "samples" / "quickstart.yaml")[0]
    planned = plan(job, machines_of(job.spec))
    assert planned.length >= 4096
    assert [len(ring.ranks) for ring in planned.rings] == [4]


def test_the_million_token_job_is_one_ring_of_128_gpus():
    job = jobs(ROOT / "manifests" / "samples" / "million-tokens.yaml")[0]
    planned = plan(job, machines_of(job.spec))
    assert (planned.length, planned.tokens_per_rank) == (1_048_576, 8192)
    assert [len(ring.ranks) for ring in planned.rings] == [128]


def test_there_is_a_sample_of_mixed_layers_and_one_of_two_rings():
    by_name = {yaml.safe_load(s.read_text())["metadata"]["name"]: jobs(s)[0] for s in SAMPLES}
    assert set(by_name["mixed-window"].spec.model.attention.pattern) == {"window", "full"}
    two = by_name["data2-context2"]
    assert [len(ring.ranks) for ring in plan(two, machines_of(two.spec)).rings] == [2, 2]
