"""ringctl as a person meets it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner, Result

from job_manifests import SHORTEST
from ring_operator.cli.common import load_jobs
from ring_operator.cli.explain import find
from ring_operator.cli.main import app
from ring_operator.errors import UserError
from ring_operator.plan import Machines, plan
from ring_operator.spec import every_field


def ringctl(*words: str, text: str | bytes = "") -> Result:
    return CliRunner().invoke(app, list(words), input=text)


CORES = ("--set", "workers.resources={limits: {cpu: 4}}")


@pytest.fixture
def good(tmp_path):
    (tmp_path / "good.yaml").write_text(SHORTEST)
    return str(tmp_path / "good.yaml")


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.yaml").write_text(SHORTEST.replace("length", "lenght") + "  suspend: true\n")
    return str(tmp_path / "bad.yaml")


def test_validate_prints_ok_for_good_files_and_all_faults_of_bad_ones(good, bad):
    result = ringctl("validate", good, bad, "/nowhere")
    assert result.exit_code == 1
    assert result.stdout == f"ok  {good}: tiny\n"
    assert f"{bad}:6: spec.context.lenght: is not a field\n  Did you mean length?\n" in result.stderr
    assert "/nowhere: cannot be read: No such file or directory\n" in result.stderr


def test_validate_refuses_what_is_not_built_and_what_cannot_be_planned(good):
    odd = SHORTEST.replace("{gpusPerNode: 0}", "{gpusPerNode: 3}") + "  parallelism: {context: 2}\n"
    assert "which 2 does not divide" in ringctl("validate", "-", text=odd).stderr
    result = ringctl("validate", "-", text=SHORTEST + "  gang: {queue: a}\n")
    assert result.exit_code == 1
    assert "standard input:10: spec.gang: a queue is not built yet\n" in result.stderr


def test_validate_and_plan_are_for_a_cluster_and_run_is_for_this_machine():
    text = SHORTEST + "  suspend: true\n"
    assert ringctl("validate", "-", text=text).exit_code == 0
    assert ringctl("plan", "-", text=text).exit_code == 0
    refused = ringctl("run", "-", text=text)
    assert "spec.suspend: suspend is for jobs on a cluster" in str(refused.exception)
    assert "Stop the run with Ctrl-C" in str(refused.exception)


def test_validate_reads_several_documents_and_json_from_standard_input():
    second = json.dumps({**yaml.safe_load(SHORTEST), "metadata": {"name": "other"}})
    result = ringctl("validate", "-", text=f"{SHORTEST}---\n{second}\n")
    assert (result.exit_code, result.stdout) == (0, "ok  standard input: tiny, other\n")


def test_validate_for_programs(good, bad):
    result = ringctl("validate", good, bad, "-o", "json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["valid"]) == (1, False)
    assert found["jobs"] == [{"file": good, "name": "tiny"}]
    assert found["errors"][0].keys() == {"path", "message", "remedy", "where"}
    assert json.loads(ringctl("validate", good, "-o", "json").stdout)["valid"] is True


def test_input_that_is_not_utf8_is_an_error_of_one_line():
    result = ringctl("validate", "-", text=b"a: \xff\xfe")
    assert (result.exit_code, result.stderr) == (1, "standard input: not UTF-8 at byte 3\n")


@pytest.mark.parametrize(
    "words", [(), ("validate",), ("plan",), ("validate", "x", "-o", "xml"), ("walk",), ("explain", "spec.contxt")]
)
def test_a_wrong_command_line_exits_2(words):
    assert ringctl(*words).exit_code == 2


@pytest.mark.parametrize(
    "field, said",
    [
        ("spec.context.length", ["spec.context.length  <whole number>  required", "at least 2, at most 1,073,741,824"]),
        ("context.layout", ["Values: zigzag, striped, contiguous", "Default: zigzag"]),
        ("training.optimizer.betas", ["<list of 2 numbers>", "Default: [0.9, 0.95]"]),
        ("parallelism.data", ["<whole number or auto>", "at least 1, at most 65,536"]),
        ("workers.volumes[0].emptyDir", ["<mapping>", "sizeLimit"]),
        ("training.offload", ["Not built yet", "Take none"]),
        ("suspend", ["For jobs on a cluster; with ringctl run: Stop the run with Ctrl-C"]),
        ("model.attention.softCap", ["<number>", "more than 0", "Default: none"]),
        ("spec.workers.env", ["<list of mappings>", "at most 128 entries", "valueFrom"]),
        ("", ["RingTrainingJob  <mapping>", "metadata", "spec"]),
    ],
)
def test_explain_says_meaning_type_default_and_bounds(field, said):
    result = ringctl("explain", field)
    assert result.exit_code == 0
    for words in said:
        assert words in result.stdout


@pytest.mark.parametrize(
    "field, hint",
    [
        ("spec.context.lenght", "spec.context.length"),
        ("steps", "spec.training.steps"),
        ("contxt", "spec.context"),
        ("training.optimizer.learning.lr", "spec.training.optimizer.lr"),
    ],
)
def test_explain_names_the_nearest_field(field, hint):
    assert f"Did you mean {hint}?" in ringctl("explain", field).stderr


def test_explain_knows_every_field():
    text = ringctl("explain", "-r").stdout
    for field in every_field():
        assert find(field.path) == field
        assert f"{field.name}  <{field.type}>" in text


def test_plan_for_people(good):
    result = ringctl("plan", good, "--set", "parallelism.context=4", *CORES)
    assert result.exit_code == 0
    assert "tiny: 4 ranks on the CPU of 1 node, 1 thread each, over gloo\n" in result.stdout
    assert "  degrees     pipeline 1 x data 1 x context 4 x tensor 1 = 4\n" in result.stdout
    assert "  ring        0: 0 > 1 > 2 > 3 > 0\n" in result.stdout
    assert "  sequence    8,192 tokens, zigzag: 2,048 a rank\n" in result.stdout


@pytest.mark.parametrize(
    "parallelism, degrees, ring",
    [
        (
            "{data: 1, context: 4, ulysses: 2}",
            "context 4 x tensor 1 = 4; context 4 = ulysses 2 x ring 2\n",
            "0: 0+1 > 2+3 > 0+1\n",
        ),
        ("{data: 1, context: 4, innerRing: 2}", "= 4; ring 4 = 2 inner rings of 2\n", "0: 0 > 1 > 2 > 3 > 0\n"),
        ("{data: 1, context: 4, ulysses: 4}", "ulysses 4 x ring 1\n", "0: 0+1+2+3, which split the heads\n"),
    ],
)
def test_plan_says_what_is_inside_a_ring(good, parallelism, degrees, ring):
    said = ringctl("plan", good, "--set", f"parallelism={parallelism}", *CORES).stdout
    assert degrees in said
    assert f"  ring        {ring}" in said
    assert ("  ring step  " in said) == ("ring 1" not in degrees)


def test_plan_says_what_layers_see_and_what_is_kept(good):
    attention = "model.attention={pattern: [window, full], window: 512, globalTokens: 16}"
    said = ringctl("plan", good, "--set", attention, "--set", "training.recompute=output", *CORES).stdout
    assert "2 window layers of 528 tokens (16 of them the first), 2 full layers\n" in said
    assert "recomputes everything but attention, of which the output alone is kept\n" in said


def test_plan_of_many_rings_shows_the_first_ones(good):
    sizes = ["parallelism={data: 16, context: 2}", "training.batch=16", "workers.processesPerNode=32"]
    result = ringctl("plan", good, *(word for size in sizes for word in ("--set", size)))
    assert "  rings       0: 0 > 1 > 0\n" in result.stdout
    assert "and 8 rings more like these\n" in result.stdout


def test_plan_for_programs(good):
    assert json.loads(ringctl("plan", good, "-o", "json", *CORES).stdout)["degrees"]["context"] == 4
    assert yaml.safe_load(ringctl("plan", good, "-o", "yaml").stdout)["job"] == "tiny"
    two = SHORTEST + "---\n" + SHORTEST.replace("tiny}", "other}")
    assert [p["job"] for p in json.loads(ringctl("plan", "-", "-o", "json", text=two).stdout)] == ["tiny", "other"]
    assert len(list(yaml.safe_load_all(ringctl("plan", "-", "-o", "yaml", text=two).stdout))) == 2


def test_plan_takes_gpus_from_the_command_line_where_the_manifest_leaves_them_open():
    text = SHORTEST.replace("{gpusPerNode: 0}", "{}")
    plan = json.loads(ringctl("plan", "-", "--gpus-per-node", "2", "-o", "json", text=text).stdout)
    assert (plan["device"], plan["worldSize"]) == ("cuda", 2)
    assert ringctl("plan", "-", text=text).exit_code == 0  # on this machine, whatever it has


def test_plan_and_run_see_the_same_cores(good, monkeypatch):
    three = Machines(nodes=1, gpus_per_node=0, cpus_per_node=3)
    monkeypatch.setattr("ring_operator.cli.plan.find_machines", lambda nodes, gpus: three)
    shown = json.loads(ringctl("plan", good, "-o", "json", "--set", "workers.processesPerNode=4").stdout)
    assert shown["notes"][0] == "4 processes share 3 CPU cores of a node"
    assert "this machine's CPU cores, 3 a node" in shown["notes"][1]
    assert shown["notes"][0] in plan(load_jobs(good, ["workers.processesPerNode=4"])[0], three).notes
    assert not json.loads(ringctl("plan", good, "-o", "json", *CORES).stdout)["notes"]


def test_jobs_are_loaded_with_every_fault_or_not_at_all(good, bad):
    assert [job.spec.training.steps for job in load_jobs(good, ["training.steps=7"])] == [7]
    with pytest.raises(UserError, match=r"lenght: is not a field"):
        load_jobs(bad)


def test_the_program_itself_exits_1_without_a_traceback(tmp_path):
    (tmp_path / "job.yaml").write_text(SHORTEST)
    command = [
        sys.executable,
        "-m",
        "ring_operator.cli",
        "plan",
        str(tmp_path / "job.yaml"),
        "--set",
        "training.steps=0",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "NO_COLOR": "1"})
    assert (result.returncode, result.stdout) == (1, "")
    assert "spec.training.steps: 0 is less than the least allowed, 1\n" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words, redirect, said",
    [
        ("validate FILE", "> /dev/full", "No space left on device"),
        ("plan FILE -o json", "> /dev/full", "No space left on device"),
        ("validate -", "<&-", "standard input: is closed"),
    ],
)
def test_streams_that_cannot_be_used_are_told_in_one_line(good, words, redirect, said):
    command = f"{sys.executable} -m ring_operator.cli {words.replace('FILE', good)} {redirect}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_an_interrupt_while_the_packages_load_is_no_traceback():
    interrupted = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "import ring_operator.cli\n"
    )
    result = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (130, "")


def test_version_names_program_api_and_contract():
    result = ringctl("version")
    assert result.stdout.startswith("ringctl ")
    assert "API ringtraining.dev/v1alpha1, contract 1" in result.stdout
