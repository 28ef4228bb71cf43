"""`ringctl run` from its command line to its exit code; only what pods run inside is exchanged."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ring_operator.cli.run as command
from local_bench import MANIFEST, with_fake_commands
from ring_operator.cli import main
from ring_operator.cli.view.live import LiveView
from ring_operator.cli.view.plain import PlainView
from ring_operator.cli.view.progress import Progress, duration, rings_line, sparkline, step_of
from ring_operator.cli.view.summary import FolderHome, printable
from ring_operator.local.events import Outcome, Preparing, Restarting, Started, Stepped, Stopping
from ring_operator.local.folder import RunFolder
from ring_operator.local.job import local_job
from ring_operator.observe import Failure
from ring_operator.plan import Machines, plan
from ring_operator.spec import load_manifest
from ring_worker.contract import MetricsLine, PreparationProgress, RingFigures

REPORT = {
    "steps": 24,
    "tokens": 2400,
    "seconds": 65.0,
    "tokens_per_second": 37.0,
    "restarts": 1,
    "heldout_bits_per_byte": 2.8,
    "bigram_bits_per_byte": 3.5,
    "unigram_bits_per_byte": 4.8,
    "ring": [{"index": 0, "efficiency": 0.8, "hidden_ratio": 0.9, "exposed_fraction": 0.05, "bytes": 2**20}],
    "sample_prompt": "def ",
    "sample": "f(x):\x1b[2J\n    return x",
}


def ringctl(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ringctl", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A job whose programs are fakes; the current folder is empty but for it."""

    def fake_job(*arguments: Any) -> Any:
        return with_fake_commands(local_job(*arguments), tmp_path / "orders")

    monkeypatch.setattr(command, "local_job", fake_job)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    (tmp_path / "job.yaml").write_text(MANIFEST)
    yield tmp_path / "job.yaml"
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_run_told_as_json(manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert ringctl(monkeypatch, "run", str(manifest), "-o", "json", "--set", "training.steps=6") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "planned"
    assert kinds[-1] == "finished"
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert events[-1]["exit_code"] == 0
    assert (manifest.parent / "runs" / "tiny" / "plan.json").exists()


def test_a_failure_is_told_plainly_and_by_the_exit_code(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (manifest.parent / "orders").mkdir()
    (manifest.parent / "orders" / "prepare").write_text("0 exit 65 notes.txt:3 is not UTF-8")
    assert ringctl(monkeypatch, "run", str(manifest), "--output", "r") == 65
    out = capsys.readouterr().out
    assert re.search(r"Failed: tiny-[01] ended with exit code 65 \(corrupt data\)", out)
    assert "| notes.txt:3 is not UTF-8" in out
    assert re.search(r"r/logs/tiny-[01]\.prepare\.log", out)


def test_a_start_that_fails_does_not_cost_the_run_that_it_was_to_replace(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = ["run", str(manifest), "--output", "r"]
    assert ringctl(monkeypatch, *run, "-o", "json") == 0
    before = (manifest.parent / "r" / "report.json").read_text()
    (manifest.parent / "orders").mkdir()
    (manifest.parent / "orders" / "prepare").write_text("0 exit 64 no such text")
    assert ringctl(monkeypatch, *run, "--overwrite") == 64
    out = capsys.readouterr().out
    assert "the run that was in the folder is kept" in out
    log = re.search(r"The whole log: (.*)", out)
    assert log is not None
    assert "no such text" in Path(log[1]).read_text()
    assert (manifest.parent / "r" / "report.json").read_text() == before
    assert ringctl(monkeypatch, *run, "--overwrite", "-o", "json") == 0
    assert not list((manifest.parent / "r").glob(".before*"))


def test_a_reader_that_goes_away_costs_no_step(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(text: str) -> None:
        if json.loads(text).get("step") == 7:
            raise BrokenPipeError

    monkeypatch.setattr(command.typer, "echo", echo)
    words = ["run", str(manifest), "--output", "r", "-o", "json", "--set", "training.steps=500"]
    assert ringctl(monkeypatch, *words) == 143
    folder = RunFolder(manifest.parent / "r")
    assert folder.last_checkpoint() == folder.last_step()


def test_a_reader_that_is_gone_from_the_first_line_is_noticed(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(command.typer, "echo", echo)
    words = ["run", str(manifest), "--output", "r", "-o", "json", "--set", "training.steps=500"]
    assert ringctl(monkeypatch, *words) == 143
    assert RunFolder(manifest.parent / "r").last_step() is None


@pytest.mark.parametrize(
    "words, said",
    [
        (["--output", "full"], "already holds a run"),
        (["--output", "full", "--resume", "--overwrite"], "cannot go with --overwrite"),
        (["--output", "full", "--resume", "--set", "context.length=8192"], "spec.context.length: 8192, but"),
        (["--output", "empty", "--resume"], "holds no run"),
        (["--output", "foreign", "--overwrite"], "is not a run's folder: it holds thesis.tex"),
        (["--output", "job.yaml"], "File exists"),
        (["--output", ".", "--overwrite"], "is where"),
        (["--set", "workers.gpusPerNode=64", "--set", "workers.processesPerNode=auto"], "spec.workers.gpusPerNode"),
    ],
)
def test_what_cannot_start_is_refused_with_exit_1_and_changes_nothing(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], said: str
) -> None:
    full = RunFolder(manifest.parent / "full")
    full.open()
    full.write_request(load_manifest(MANIFEST)[0], {})
    (full / "ranks.json").touch()
    full.close()
    (manifest.parent / "foreign").mkdir()
    (manifest.parent / "foreign" / "thesis.tex").touch()
    before = sorted(manifest.parent.glob("*/*"))
    assert ringctl(monkeypatch, "run", str(manifest), *words) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert sorted(manifest.parent.glob("*/*")) == before
    assert not (manifest.parent / "empty").exists()


def test_without_the_workers_packages_the_way_to_them_is_told(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(command, "_WORKER_PACKAGES", ("json", "no_such_package"))
    assert ringctl(monkeypatch, "run", str(manifest)) == 1
    assert "missing: no_such_package" in (said := capsys.readouterr().err)
    assert "ring-training-operator[worker]" in said


def line(step: int, epoch: int = 1, heldout: float | None = None) -> MetricsLine:
    ring = RingFigures(0, 1.0, 0.8, 0.4, 0.1, 0.0, 0.75, 10, 1.0)
    return MetricsLine(step, 10, 4.0 / step, 0.1, 1.0, step, 2.0 * step, 50.0, epoch, (ring,), heldout)


def told() -> list[Any]:
    failure = Failure("tiny-0", 1, -9, "last words")
    return [
        Preparing(None),
        Preparing(PreparationProgress(1, 2, 2**20, 2**21, 3)),
        Started(1, 4, 0),
        *(Stepped(line(step)) for step in (1, 2, 3)),
        Restarting("rank 1 was killed", failure),
        Started(2, 4, 1),
        Stepped(line(3, epoch=2, heldout=3.25)),
        Stopping(30),
    ]


@pytest.mark.parametrize("view_class", [PlainView, LiveView])
def test_people_are_shown_what_matters(view_class: Any, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=view_class is LiveView, highlight=False)
    home = FolderHome(RunFolder(tmp_path))
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    view = view_class(console)
    view.begin(plan(load_manifest(MANIFEST)[0], Machines(2, 0, 1)), home)
    for event in told():
        view.tell(event)
    view.end()
    view.finish(Outcome(0, "done"), home)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in (
        "1 of 2 files, 1.0 of 2.0 MiB, 3 skipped",
        "50 tokens/s",
        "0.75",
        "rank 1 was killed",
        "3.250 bits per byte",
        "0:14 left",
        "2.80 bits per byte (bigram 3.50, unigram 4.80)",
        "90% of the transfers hidden",
        "return x",
    ):
        assert text in shown
    assert "\x1b[2J" not in shown


def test_steps_done_again_replace_the_old_ones() -> None:
    progress = Progress()
    for event in told():
        progress.add(event)
    assert [(each.step, each.epoch) for each in progress.lines] == [(1, 1), (2, 1), (3, 2)]
    assert progress.restarts == 1


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0:00"), (59.6, "1:00"), (245, "4:05"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "values, width, bars",
    [([], 5, ""), ([1.0, 1.0], 5, "▁▁"), ([8.0, 4.0, 1.0], 5, "█▄▁"), ([3.0, 3.0, 1.0, 1.0], 2, "█▁")],
)
def test_sparklines(values: list[float], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars


def test_many_rings_are_told_by_their_range() -> None:
    rings = tuple(RingFigures(i, 1.0, 0.8, 0.4, 0.1, 0.0, 0.1 * (i + 1), 10, 1.0) for i in range(6))
    assert (
        rings_line(step_of(Stepped(MetricsLine(1, 1, 1.0, 1.0, 1.0, 1, 1.0, 1.0, 1, rings))))
        == "0.10 to 0.60 (6 rings)"
    )


def test_nothing_that_is_printed_steers_the_terminal() -> None:
    assert printable("a\tb\n\x1b]0;x\x07\x9b") == "a\tb\n\\x1b]0;x\\x07\\x9b"
