"""The commands on a cluster from their command line to their exit code, against an API server at the edge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job_manifests import SHORTEST, STORAGE
from pretend_api import CORE, NAMESPACE, PretendApi, refusal
from processes import wait_until
from remote_cases import (
    FAILED,
    INVALID,
    STARTING,
    SUCCEEDED,
    SUSPENDED,
    WAITING,
    documents,
    event,
    pod,
    ranks_map,
    running,
)
from ring_operator import names
from ring_operator.cli import main
from ring_operator.cli.remote import log_stream, top
from ring_operator.remote import jobs as remote_jobs

SECONDS = 30


@pytest.fixture
def api() -> Iterator[PretendApi]:
    with PretendApi() as api:
        yield api


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(f"{SHORTEST}  workers: {{gpusPerNode: 0, volumes: [{json.dumps(STORAGE)}]}}\n".replace(
        "  workers: {gpusPerNode: 0}\n", "", 1
    ))  # fmt: skip
    return path


@pytest.fixture
def ringctl(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, api: PretendApi
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output, standard error. No pause is longer than it must be."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    for module, name in (
        (remote_jobs, "RETRY_SECONDS"),
        (remote_jobs, "POLL_SECONDS"),
        (remote_jobs, "_BREATH_SECONDS"),
        (log_stream, "LOOK_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.02)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ringctl", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def submitted(api: PretendApi, ringctl: Any, manifest: Path) -> PretendApi:
    """With the job tiny."""
    assert ringctl("submit", manifest)[0] == 0
    return api


def meanwhile(act: Callable[[], None]) -> None:
    threading.Thread(target=act, daemon=True).start()


def asked(api: PretendApi, method: str) -> list[Any]:
    return [body for verb, _, _, body in api.requests if verb == method]


def test_submit_says_what_became_of_it(api: PretendApi, ringctl: Any, manifest: Path) -> None:
    code, out, _ = ringctl("submit", manifest)
    assert (code, out.splitlines()[0]) == (0, f"tiny created in namespace {NAMESPACE}")
    assert "ringctl status tiny -n team --wait" in out
    assert ringctl("submit", manifest)[1].startswith("tiny unchanged")
    assert ringctl("submit", manifest, "--set", "recovery.stallTimeoutSeconds=700")[1].startswith("tiny changed")
    _, _, query, body = next(r for r in api.requests if r[0] == "PATCH")
    assert query == {"fieldManager": "ringctl", "force": "false"}
    assert body["metadata"] == {"name": "tiny", "namespace": NAMESPACE}
    assert "suspend" not in body["spec"]


def test_submit_for_programs(api: PretendApi, ringctl: Any, manifest: Path) -> None:
    found = json.loads(ringctl("submit", manifest, "-o", "json", "-n", NAMESPACE)[1])
    assert found == {"jobs": [{"namespace": "team", "name": "tiny", "uid": "uid-tiny", "result": "created"}]}


def test_submit_checks_all_here_before_it_asks_anybody(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SHORTEST.replace("length", "lenght"))
    code, _, err = ringctl("submit", path)
    assert code == 1
    assert f"{path}:6: spec.context.lenght: is not a field" in err
    assert api.requests == []


def test_submit_refuses_a_plan_that_cannot_be(api: PretendApi, ringctl: Any, manifest: Path) -> None:
    code, _, err = ringctl("submit", manifest, "--set", "workers.gpusPerNode=auto")
    assert (code, api.requests) == (1, [])
    assert "spec.workers.gpusPerNode" in err


def test_submit_in_another_namespace_than_the_manifests_is_refused(
    api: PretendApi, ringctl: Any, manifest: Path
) -> None:
    code, _, err = ringctl("submit", manifest, "--set", "metadata.namespace=other", "-n", NAMESPACE)
    assert (code, api.requests) == (1, [])
    assert "metadata.namespace: other, but --namespace is team" in err


def test_a_change_of_what_is_fixed_is_told_at_its_line_with_the_way_out(
    submitted: PretendApi, ringctl: Any, manifest: Path
) -> None:
    cause = {"message": "Forbidden: may not be changed while the job runs. Suspend ...", "field": "spec.training"}
    submitted.refuse(200, json.dumps(submitted.jobs["tiny"]))
    submitted.refuse(422, refusal(422, "Invalid", "is invalid", name="tiny", causes=[cause]))
    code, _, err = ringctl("submit", manifest)
    assert code == 1
    assert f"{manifest}:8: spec.training: may not be changed while the job runs" in err
    assert "ringctl suspend tiny --wait" in err


def test_a_field_that_another_has_set_is_a_conflict(submitted: PretendApi, ringctl: Any, manifest: Path) -> None:
    cause = {"message": 'conflict with "kubectl-edit"', "field": ".spec.training.steps"}
    submitted.refuse(200, json.dumps(submitted.jobs["tiny"]))
    submitted.refuse(409, refusal(409, "Conflict", "conflict", name="tiny", causes=[cause]))
    code, _, err = ringctl("submit", manifest)
    assert code == 1
    assert 'spec.training.steps: conflict with "kubectl-edit"' in err
    assert "--force-conflicts" in err
    assert ringctl("submit", manifest, "--force-conflicts")[0] == 0
    assert submitted.requests[-1][2]["force"] == "true"


def watched(api: PretendApi) -> bool:
    return any("watch" in query for _, _, query, _ in api.requests)


def live(api: PretendApi, *statuses: dict[str, Any], when: Callable[[PretendApi], bool] = watched) -> None:
    """Once that is so, one status after the other. A watch is told of each; who polls may miss some."""
    wait_until(lambda: when(api), SECONDS, "somebody looks")
    for status in statuses:
        time.sleep(0.1)
        api.set_status("tiny", **status)


def is_suspended(api: PretendApi) -> bool:
    return bool(api.jobs["tiny"]["spec"].get("suspend"))


@pytest.mark.parametrize("end, code, said", [
    (SUCCEEDED, 0, "Done: 10 steps, 40,960 tokens in 4:05"),
    (FAILED, 3, "Failed: rank 1 in tiny-0 ended with exit code 70; no more"),
    (INVALID, 1, "Invalid: the operator cannot run it: spec.context: too long"),
])  # fmt: skip
def test_submit_and_wait_shows_the_run_and_ends_with_its_code(
    api: PretendApi, ringctl: Any, manifest: Path, end: dict[str, Any], code: int, said: str
) -> None:
    meanwhile(lambda: live(api, WAITING, STARTING, running(1), running(5), end))
    found, out, _ = ringctl("submit", manifest, "--wait")
    assert found == code
    assert "job: tiny in namespace team" in out
    assert "1 of 2 on nodes" in out
    assert "starting 4 ranks, epoch 1" in out
    assert "5,000 tokens/s  ring efficiency 0.81" in out
    assert said in out


def test_submit_and_wait_for_programs(api: PretendApi, ringctl: Any, manifest: Path) -> None:
    meanwhile(lambda: live(api, STARTING, running(5), SUCCEEDED))
    code, out, _ = ringctl("submit", manifest, "--wait", "-o", "json")
    events = documents(out)
    assert code == 0
    assert [events[0]["event"], events[1]["event"], events[-1]["event"]] == ["submitted", "planned", "finished"]
    assert (events[1]["namespace"], events[1]["job"]) == ("team", "tiny")
    assert events[-1]["exit_code"] == 0
    assert events[-1]["checkpoint_step"] == 10
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["step"] == 10
    assert steps[-1].keys() >= {"total_steps", "loss", "tokens_per_second", "efficiency", "ring_efficiency", "epoch"}


def test_waiting_goes_on_over_an_api_server_that_is_away(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **STARTING)

    def trouble() -> None:
        wait_until(lambda: watched(submitted), SECONDS, "somebody looks")
        submitted.refuse(503, "starting", times=4)
        submitted.set_status("tiny", **running(3))
        submitted.refuse(410, refusal(410, "Expired", "too old resource version"))
        time.sleep(0.5)
        submitted.set_status("tiny", **SUCCEEDED)

    meanwhile(trouble)
    assert ringctl("status", "tiny", "--wait")[0] == 0


def test_a_job_that_is_deleted_while_it_is_waited_for_is_not_found(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(1))

    def remove() -> None:
        wait_until(lambda: watched(submitted), SECONDS, "somebody looks")
        submitted.remove("tiny")

    meanwhile(remove)
    code, out, _ = ringctl("status", "tiny", "--wait")
    assert (code, "Gone: the job was deleted" in out) == (4, True)


def test_waiting_for_a_job_that_has_ended_tells_its_end(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **FAILED)
    code, out, _ = ringctl("status", "tiny", "--wait")
    assert code == 3
    assert "ringctl restart tiny -n team" in out


def test_ctrl_c_leaves_the_job_alone_and_says_so(submitted: PretendApi, tmp_path: Path) -> None:
    submitted.set_status("tiny", **running(1))
    command = [sys.executable, "-m", "ring_operator.cli", "status", "tiny", "--wait"]
    environment = {**os.environ, "KUBECONFIG": str(submitted.kubeconfig(tmp_path))}
    watching = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    while "step 1/10" not in watching.stdout.readline():
        assert watching.poll() is None
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 130
    assert "The job goes on" in err
    assert "ringctl status tiny -n team --wait" in err
    assert asked(submitted, "DELETE") == []
    assert len(asked(submitted, "PATCH")) == 1  # the submission


def test_status_of_all_jobs(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(3, ringsReady="1/1", restarts={"total": 2}))
    lines = ringctl("status")[1].splitlines()
    assert lines[0].split() == ["NAME", "STATE", "RINGS", "STEP", "LOSS", "TOKENS/S", "EFFICIENCY", "RESTARTS", "AGE"]
    assert lines[1].split()[:-1] == ["tiny", "Running", "1/1", "3/10", "2.667", "5,000", "0.81", "2"]
    assert ringctl("status", "-A")[1].split()[0] == "NAMESPACE"
    assert json.loads(ringctl("status", "-o", "json")[1])["jobs"][0]["state"] == "Running"


def test_no_jobs_is_said(ringctl: Any) -> None:
    assert ringctl("status")[:2] == (0, "There are no jobs in namespace team.\n")
    assert "There are no jobs in any namespace." in ringctl("top", "-A")[1]


def test_status_of_one_job_explains_it(submitted: PretendApi, ringctl: Any) -> None:
    excluded = [{"node": "node-z", "reason": "failed twice", "until": "2026-01-01T01:00:00Z"}]
    status = running(
        3, restarts={"total": 2, "application": 2}, lastFailure="rank 1\x1b[2J died", excludedNodes=excluded
    )
    submitted.set_status("tiny", **{**WAITING, **status})
    submitted.pods = [pod(0), pod(1, phase="Failed", reason="Evicted", message="disk pressure")]
    submitted.events = [event("Broken", "rank 1 died; restart 2 of 3", count=2)]
    out = ringctl("status", "tiny")[1]
    for said in (
        "tiny  namespace team  Running",
        "data 1 x context 4 = 4 ranks on 2 nodes x 2",
        "3 of 10, 1:10 left",
        "0: node-a > node-b > node-a, 5,000 tokens/s, ring efficiency 0.81",
        "2 (application 2)",
        "rank 1\\x1b[2J died",
        "node node-z until 2026-01-01T01:00:00Z: failed twice",
        "Placed     False   Waiting  1 of 2 on nodes",
        "tiny-1  Failed   node-b  Evicted: disk pressure",
        "Broken  rank 1 died; restart 2 of 3 (2 times)",
    ):
        assert said in out
    assert "\x1b" not in out


def test_status_of_one_job_for_programs(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(3))
    submitted.pods, submitted.events = [pod(0), pod(1)], [event("Broken", "rank 1 died")]
    submitted.config_maps["tiny-ranks"] = ranks_map("tiny-1", "tiny-0")
    found = json.loads(ringctl("status", "tiny", "-o", "json")[1])
    assert found["status"]["progress"]["step"] == 3
    assert [(p["name"], p["ranks"], p["phase"], p["node"]) for p in found["pods"]] == [
        ("tiny-0", [2, 3], "Running", "node-a"),
        ("tiny-1", [0, 1], "Running", "node-b"),
    ]
    assert found["events"][0]["reason"] == "Broken"


def test_who_may_not_see_pods_sees_the_rest(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(3))
    submitted.forbidden = {f"{CORE}/pods", f"{CORE}/events", f"{CORE}/configmaps/tiny-ranks"}
    code, out, err = ringctl("status", "tiny")
    assert (code, "3 of 10" in out, 'User "ada" cannot list' in err) == (0, True, True)
    assert json.loads(ringctl("top", "tiny", "-o", "json")[1])["pods"] == []
    code, _, err = ringctl("logs", "tiny")
    assert (code, 'User "ada" cannot list' in err) == (5, True)


def test_top_by_job_and_by_ring_and_pod(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(3))
    submitted.pods = [pod(0), pod(1, attempt=1)]
    submitted.config_maps["tiny-ranks"] = ranks_map("tiny-0", "tiny-1-r1")
    assert "tiny  Running" in ringctl("top")[1]
    lines = [line.split() for line in ringctl("top", "tiny")[1].splitlines()]
    assert ["0", "5,000", "0.81", "node-a", ">", "node-b", ">", "node-a"] in lines
    assert ["tiny-1-r1", "Running", "node-b", "2-3", "0", "2", "1"] in lines
    assert json.loads(ringctl("top", "tiny", "-o", "json")[1])["pods"][1]["attempt"] == 1


def test_a_live_picture_stays_while_the_api_server_is_away(
    submitted: PretendApi, ringctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[Any] = []

    def draw() -> Any:
        if pictures:
            raise remote_jobs.UnreachableError("no answer", again=True)
        return "a picture"

    for _ in range(3):
        pictures.append(top._redrawn(pictures[-1] if pictures else "a picture", draw))
    assert [str(part) for part in pictures[-1].renderables] == ["a picture", "trying again: no answer"]


@pytest.mark.parametrize("command", ["status", "top", "logs", "suspend", "resume", "restart", "delete"])
def test_a_job_that_is_not_there_is_not_found_and_those_that_are_are_named(
    submitted: PretendApi, ringctl: Any, command: str
) -> None:
    code, _, err = ringctl(command, "tinny")
    assert code == 4
    assert "there is no job tinny in namespace team\n  There are: tiny." in err


def test_suspend_and_resume_wait_until_it_is_so(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **running(1))
    meanwhile(lambda: live(submitted, {"state": "Suspending"}, SUSPENDED, when=is_suspended))
    code, out, _ = ringctl("suspend", "tiny", "--wait")
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "tiny suspended", "  it is so")
    assert submitted.jobs["tiny"]["spec"]["suspend"] is True
    assert "it was suspended already" in ringctl("suspend", "tiny")[1]
    meanwhile(lambda: live(submitted, STARTING, running(2), when=lambda api: not is_suspended(api)))
    found = json.loads(ringctl("resume", "tiny", "--wait", "-o", "json")[1])
    assert found == {"namespace": "team", "name": "tiny", "action": "resumed", "changed": True, "reached": True}
    assert submitted.jobs["tiny"]["spec"]["suspend"] is False


def test_resume_and_wait_ends_when_the_job_fails(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **SUSPENDED)
    ringctl("suspend", "tiny")
    meanwhile(lambda: live(submitted, STARTING, FAILED, when=lambda api: not is_suspended(api)))
    code, out, _ = ringctl("resume", "tiny", "--wait")
    assert (code, "it has ended: rank 1 in tiny-0" in out) == (3, True)


def test_restart_asks_by_a_new_time_and_waits_until_it_is_obeyed(submitted: PretendApi, ringctl: Any) -> None:
    """The old failure is not the end of the new start."""
    submitted.set_status("tiny", **FAILED)

    def request() -> str:
        return str(submitted.jobs["tiny"]["metadata"].get("annotations", {}).get(names.ANNOTATION_RESTART, ""))

    def obey() -> None:
        wait_until(lambda: bool(request()), SECONDS, "it is asked")
        time.sleep(0.2)  # in which the old failure is seen
        fresh = {"completionTime": None, "conditions": [], "restartRequest": request()}
        live(submitted, {**fresh, "state": "Restarting"}, running(1), when=lambda api: True)

    meanwhile(obey)
    code, out, _ = ringctl("restart", "tiny", "--wait")
    assert (code, out.splitlines()[0]) == (0, "tiny asked to restart")
    first = request()
    ringctl("restart", "tiny")
    assert request() > first


@pytest.mark.parametrize(
    "command, status, said",
    [
        ("suspend", SUCCEEDED, "has ended (Succeeded)"),
        ("restart", SUCCEEDED, "has succeeded; there is nothing to restart"),
    ],
)
def test_what_cannot_be_is_refused(
    submitted: PretendApi, ringctl: Any, command: str, status: dict[str, Any], said: str
) -> None:
    submitted.set_status("tiny", **status)
    patches = len(asked(submitted, "PATCH"))
    code, _, err = ringctl(command, "tiny")
    assert (code, said in err) == (1, True)
    assert len(asked(submitted, "PATCH")) == patches


def test_a_suspended_job_is_resumed_and_not_restarted(submitted: PretendApi, ringctl: Any) -> None:
    ringctl("suspend", "tiny")
    code, _, err = ringctl("restart", "tiny")
    assert (code, "ringctl resume tiny" in err) == (1, True)


def test_delete_waits_for_the_pods_too_and_spares_a_namesake(submitted: PretendApi, ringctl: Any) -> None:
    submitted.pods = [pod(0)]

    def go() -> None:
        looks = f"{CORE}/pods"
        wait_until(lambda: any(path == looks for _, path, _, _ in submitted.requests), SECONDS, "somebody looks")
        submitted.pods = [pod(0, uid="a namesake's")]

    meanwhile(go)
    code, out, _ = ringctl("delete", "tiny", "--wait")
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "tiny deleted", "  it is so")
    (body,) = asked(submitted, "DELETE")
    assert body == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-tiny"}}


@pytest.fixture
def logging(submitted: PretendApi) -> PretendApi:
    """Two pods of two ranks, whose order is not that of the pods."""
    submitted.set_status("tiny", **running(1))
    submitted.pods = [pod(0), pod(1)]
    submitted.config_maps["tiny-ranks"] = ranks_map("tiny-1", "tiny-0")
    for index, first in ((0, 2), (1, 0)):
        lines = [f"[rank {first + i % 2}] line {i}" for i in range(6)]
        submitted.append_log(f"tiny-{index}", "[agent] epoch 1", *lines)
    return submitted


def test_logs_of_all_pods_of_one_and_of_one_rank(logging: PretendApi, ringctl: Any) -> None:
    lines = ringctl("logs", "tiny")[1].splitlines()
    assert len(lines) == 14
    assert lines[0] == "[tiny-0] [agent] epoch 1"
    assert ringctl("logs", "tiny", "--pod", 1, "--tail", 2)[1].splitlines() == ["[rank 0] line 4", "[rank 1] line 5"]
    assert ringctl("logs", "tiny", "--rank", 1)[1].splitlines() == ["line 1", "line 3", "line 5"]
    assert ringctl("logs", "tiny", "--rank", 2, "--tail", 1)[1].splitlines() == ["line 4"]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--rank", "4"], 4, "there is no rank 4\n  There are 0 to 3."),
        (["--pod", "2"], 4, "there is no pod 2\n  There are 0 to 1."),
        (["--rank", "1", "--pod", "1"], 1, "cannot go with --pod"),
    ],
)
def test_logs_of_what_there_is_not(logging: PretendApi, ringctl: Any, words: list[str], code: int, said: str) -> None:
    found, _, err = ringctl("logs", "tiny", *words)
    assert (found, said in err) == (code, True)


def test_logs_of_a_job_without_pods_or_ranks_say_why(submitted: PretendApi, ringctl: Any) -> None:
    submitted.set_status("tiny", **SUSPENDED)
    code, _, err = ringctl("logs", "tiny")
    assert (code, "job tiny has no pods (Suspended)" in err) == (4, True)
    submitted.pods = [pod(0, phase="Pending")]
    assert "no ranks were started yet" in ringctl("logs", "tiny", "--rank", 0)[2]
    code, out, err = ringctl("logs", "tiny")
    assert (code, out) == (0, "")
    assert "tiny-0 has printed nothing yet: Starting" in err


def test_logs_of_a_failed_preparation_are_shown_unasked(submitted: PretendApi, ringctl: Any) -> None:
    ended = [{"name": "prepare", "state": {"terminated": {"exitCode": 65}}}]
    submitted.pods = [pod(0, phase="Failed", initContainerStatuses=ended)]
    submitted.append_log("tiny-0", "notes.txt:3 is not UTF-8")
    assert ringctl("logs", "tiny")[1] == "notes.txt:3 is not UTF-8\n"
    assert submitted.requests[-1][2]["container"] == "prepare"


@pytest.mark.parametrize("words", [[], ["--rank", "1", "--tail", "1"]], ids=["all", "one rank"])
def test_logs_that_are_followed_end_with_the_job_and_repeat_nothing(
    logging: PretendApi, ringctl: Any, words: list[str]
) -> None:
    logging.log_is_open = {"tiny-0", "tiny-1"}

    def follows(pod: str) -> bool:
        return any(f"{pod}/log" in path and "follow" in query for _, path, query, _ in logging.requests)

    def train_on() -> None:
        wait_until(lambda: follows("tiny-1") and (follows("tiny-0") or bool(words)), SECONDS, "somebody reads")
        logging.append_log("tiny-1", "[rank 1] line 7", "[rank 0] line 8")
        time.sleep(0.1)
        logging.end_log("tiny-1")  # the connection breaks, and the rest comes over another
        logging.append_log("tiny-1", "[rank 1] line 9")
        logging.pods = [pod(0, phase="Succeeded"), pod(1, phase="Succeeded")]
        logging.end_log("tiny-0")
        logging.set_status("tiny", **SUCCEEDED)

    meanwhile(train_on)
    code, out, _ = ringctl("logs", "tiny", "-f", *words)
    lines = out.splitlines()
    assert code == 0
    if words:
        assert lines == ["line 5", "line 7", "line 9"]
    else:
        assert len(lines) == len(set(lines)) == 17


def test_logs_that_are_followed_go_over_to_a_replacement(logging: PretendApi, ringctl: Any) -> None:
    def replace() -> None:
        wait_until(lambda: any("tiny-1/log" in r[1] for r in logging.requests), SECONDS, "its log is read")
        logging.append_log("tiny-1-r1", "[agent] epoch 2")
        logging.pods = [pod(0), pod(1, attempt=1)]
        wait_until(lambda: any("tiny-1-r1/log" in r[1] for r in logging.requests), SECONDS, "its log is read")
        logging.set_status("tiny", **SUCCEEDED)
        logging.pods = []

    meanwhile(replace)
    code, out, err = ringctl("logs", "tiny", "-f", "--pod", 1)
    assert (code, out.splitlines()[-1]) == (0, "[agent] epoch 2")
    assert "tiny-1 was replaced by tiny-1-r1" in err
