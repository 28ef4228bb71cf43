"""Preparing: bad documents stop it or are skipped by name, and no interruption and no number of processes shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_samples import (
    data_of,
    json_lines,
    jsonl_source,
    main_process,
    prepared_files,
    preparing,
    run_config,
    streams_of,
    word_corpus,
    write_corpus,
)
from ring_worker.contract import Data, PreparationProgress, Source
from ring_worker.data.dataset import Dataset
from ring_worker.data.errors import BadInputError, DataConfigError, PreparationDiedError
from ring_worker.data.faults import Fault
from ring_worker.data.prepare import prepare
from ring_worker.data.work import run_all

TEXTS = word_corpus(40)
BAD = {"bad/empty.txt": b"", "bad/latin.txt": b"one\ncaf\xe9\n"}


def test_all_bad_documents_are_named_at_once(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", {**TEXTS, **BAD})
    (tmp_path / "text/gone.txt").symlink_to("nowhere")
    with pytest.raises(BadInputError) as error:
        prepare(data_of(tmp_path / "text", tmp_path / "out"), shard_bytes=500)
    assert str(error.value).splitlines() == [
        "spec.data.source: 3 bad documents (1 empty, 1 not-utf-8, 1 unreadable):",
        "  bad/empty.txt: the file is empty",
        "  bad/latin.txt:2: not UTF-8: byte 0xe9 at offset 7",
        "  gone.txt: cannot be read: No such file or directory",
        "  Mend them, leave them out with spec.data.source.exclude, or set spec.data.onError: skip.",
    ]


def test_a_message_names_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a.jsonl": b"{\n" * 30})
    with pytest.raises(BadInputError) as error:
        prepare(data_of(tmp_path, tmp_path / "out", source=jsonl_source(tmp_path)))
    lines = str(error.value).splitlines()
    assert lines[0] == "spec.data.source: at least 20 bad documents (20 not-json):"
    assert [line.split(":")[1] for line in lines[1:21]] == [str(n) for n in range(1, 21)]


def test_skipped_documents_are_counted_named_and_trained_on_by_nobody(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", {**TEXTS, **BAD})
    data = data_of(tmp_path / "text", tmp_path / "out", on_error="skip")
    folder = prepare(data)
    dataset = Dataset.open(data, 16)
    assert (dataset.documents, dataset.skipped) == (len(TEXTS), 2)
    assert dataset.training_tokens == len(streams_of(TEXTS, 0.2, seed=0)[0])
    faults = [Fault.from_json(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert [(f.kind, f.file, f.line, f.offset) for f in faults] == [
        ("empty", "bad/empty.txt", 0, -1),
        ("not-utf-8", "bad/latin.txt", 2, 7),
    ]
    assert json.loads((folder / "dataset.json").read_text())["skipped"] == [
        {"count": 1, "kind": "empty"},
        {"count": 1, "kind": "not-utf-8"},
    ]


def test_what_was_skipped_once_stops_a_job_that_says_stop(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", {**TEXTS, **BAD})
    prepare(data_of(tmp_path / "text", tmp_path / "out", on_error="skip"))
    stops = data_of(tmp_path / "text", tmp_path / "out")
    for attempt in (prepare, lambda data: Dataset.open(data, 16)):
        with pytest.raises(BadInputError, match="2 bad documents"):
            attempt(stops)


def test_nothing_but_bad_documents_is_an_error_under_skip_too(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no document is left, all 2 are bad \(1 empty, 1 not-utf-8\)"):
        prepare(data_of(write_corpus(tmp_path / "text", BAD), tmp_path / "out", on_error="skip"))


@pytest.mark.parametrize(
    "texts, fraction, message",
    [
        ({"only.txt": b"x"}, 0.5, r"a single document \('only\.txt'\), but whole documents are held out"),
        ({"only.txt": b"x"}, 1.0, r"a single document \('only\.txt'\), but whole documents are held out"),
        (TEXTS, 0.001, r"0\.001 of 40 documents holds out none\. 0\.0\d+ would hold out 'part\d/text\d+\.txt'"),
        (TEXTS, 1.0, r"1 of 40 documents holds out all, so none is trained on\. 0\.\d+ would train on 'part"),
    ],
)
def test_a_split_without_documents_says_which_fraction_would_do(
    tmp_path: Path, texts: dict[str, bytes], fraction: float, message: str
) -> None:
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "out", held_out_fraction=fraction)
    with pytest.raises(DataConfigError, match=message) as error:
        prepare(data)
    if "would" in message:
        better = float(str(error.value).split(" would ")[0].split()[-1])
        prepare(data_of(tmp_path / "text", tmp_path / "out", held_out_fraction=better))


def test_nothing_may_be_held_out_on_purpose(tmp_path: Path) -> None:
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "out", held_out_fraction=0.0)
    prepare(data)
    dataset = Dataset.open(data, 16)
    assert (dataset.held_out_sequences, dataset.held_out_bytes) == (0, 0)
    assert dataset.unigram_bits_per_byte != dataset.unigram_bits_per_byte  # nan


def test_a_document_is_held_out_whatever_the_others_are(tmp_path: Path) -> None:
    half = dict(list(TEXTS.items())[::2])
    held = []
    for name, texts in (("all", TEXTS), ("half", half)):
        folder = prepare(data_of(write_corpus(tmp_path / name, texts), tmp_path / "out", held_out_fraction=0.3))
        held.append({json.loads(line) for line in (folder / "heldout.ids.jsonl").read_text().splitlines()})
    assert held[1] == held[0] & set(half)
    assert held[1]


@pytest.mark.parametrize("kind", ["path", "jsonl"])
def test_processes_do_not_show_in_the_result(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "text"
    if kind == "path":
        source = Source(kind="path", path=str(write_corpus(root, TEXTS)))
    else:
        texts = [{"text": text.decode()} for text in TEXTS.values()]
        write_corpus(root, {"a.jsonl": json_lines(texts), "b.jsonl": json_lines(texts[:3]) + b"{"})
        source = jsonl_source(root)
    serial, parallel = (
        prepare(data_of(root, tmp_path / f"{n}", source=source, workers=n, on_error="skip"), shard_bytes=900)
        for n in (1, 2)
    )
    assert prepared_files(serial) == prepared_files(parallel)
    assert len(list((serial / "shards").glob("*.npz"))) > 4


def test_jsonl_documents_are_named_by_their_lines(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", {"a.jsonl": json_lines([{"body": f"text {i}"} for i in range(30)])})
    data = data_of(tmp_path, tmp_path / "out", source=jsonl_source(tmp_path / "text", field="body"))
    folder = prepare(data, shard_bytes=100)
    ids = [i for split in ("training", "heldout") for i in (folder / f"{split}.ids.jsonl").read_text().splitlines()]
    assert {json.loads(i) for i in ids} == {f"a.jsonl:{n}" for n in range(1, 31)}


def test_a_killed_preparation_goes_on_and_nothing_shows(tmp_path: Path) -> None:
    texts = word_corpus(400, words=400)
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "killed", workers=2)
    undisturbed = prepare(data_of(tmp_path / "text", tmp_path / "undisturbed"), shard_bytes=12000)
    total = len(list(undisturbed.glob("shards/*.npz")))
    finished: list[Path] = []
    for least in (1, total // 3):
        with preparing(run_config(data), 12000, tmp_path) as process:
            finished = wait_for_shards(tmp_path / "killed", least, process)
            process.kill()
            process.wait(timeout=20)
    assert 0 < len(finished) < total, "the kill was to come in mid-run"
    assert not list((tmp_path / "killed").glob("*/dataset.json"))
    before = {path: path.stat().st_mtime_ns for path in finished}
    resumed = prepare(data, shard_bytes=12000)
    assert prepared_files(resumed) == prepared_files(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in finished} == before, "finished shards were made again"


def wait_for_shards(prepared: Path, least: int, process: subprocess.Popen[str]) -> list[Path]:
    """Finished shards, as soon as there are `least`."""
    deadline = time.monotonic() + 30
    while len(found := list(prepared.glob("*/shards/*.npz"))) < least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


def test_a_damaged_shard_of_an_earlier_start_is_made_again(tmp_path: Path) -> None:
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "out")
    folder = prepare(data, shard_bytes=700)
    whole = prepared_files(folder)
    (folder / "dataset.json").unlink()
    (folder / "shards/000001.training.bin").write_bytes(b"half")
    (folder / "shards/000002.npz").write_bytes(b"PK half")
    (folder / "shards/000003.heldout.bin").unlink()
    (folder / "shards/000004.npz.abc.tmp").write_bytes(b"left over")
    assert prepare(data, shard_bytes=700) == folder
    assert prepared_files(folder) == whole


def test_two_preparers_do_the_work_once(tmp_path: Path) -> None:
    texts = word_corpus(300, words=300)
    config = run_config(data_of(write_corpus(tmp_path / "text", texts), tmp_path / "out"))
    with preparing(config, 12000, tmp_path) as one, preparing(config, 12000, tmp_path) as other:
        results = [process.communicate(timeout=30) for process in (one, other)]
    assert [process.returncode for process in (one, other)] == [0, 0], results
    folders = {out.strip() for out, _ in results}
    assert len(folders) == 1
    alone = prepare(data_of(tmp_path / "text", tmp_path / "alone"), shard_bytes=12000)
    assert prepared_files(Path(folders.pop())) == prepared_files(alone)


def test_the_lock_of_a_killed_holder_is_free_and_a_living_one_waited_for(tmp_path: Path) -> None:
    texts = word_corpus(400, words=400)
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "out")
    with preparing(run_config(data), 12000, tmp_path) as holder:
        wait_for_shards(tmp_path / "out", 1, holder)
        os.kill(holder.pid, signal.SIGSTOP)
        with preparing(run_config(data), 12000, tmp_path) as waiting:
            assert waiting.stderr is not None
            assert "Another process prepares the same data" in waiting.stderr.readline()
            assert waiting.poll() is None
            holder.kill()
            assert waiting.wait(timeout=30) == 0


def test_a_complete_preparation_is_left_alone(tmp_path: Path) -> None:
    data = data_of(write_corpus(tmp_path / "text", TEXTS), tmp_path / "out")
    folder = prepare(data)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert prepare(data) == folder
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


@pytest.mark.parametrize("changes", [{"seed": 1}, {"held_out_fraction": 0.3}])
def test_what_the_tokens_depend_on_names_the_folder(tmp_path: Path, changes: dict[str, object]) -> None:
    write_corpus(tmp_path / "text", TEXTS)
    folder = prepare(data_of(tmp_path / "text", tmp_path / "out"))
    assert prepare(data_of(tmp_path / "text", tmp_path / "out", **changes)) != folder
    assert prepare(data_of(tmp_path / "text", tmp_path / "out", packing="concatenate", workers=2)) == folder
    os.utime(tmp_path / "text/part0/text000.txt", ns=(1, 1))
    assert prepare(data_of(tmp_path / "text", tmp_path / "out")) != folder


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", {**TEXTS, **BAD})
    prepare(data_of(tmp_path / "text", tmp_path / "out", on_error="skip"), shard_bytes=500)
    progress = PreparationProgress.from_json((tmp_path / "out/progress.json").read_text())
    size = sum(map(len, {**TEXTS, **BAD}.values()))
    assert progress == PreparationProgress(42, 42, size, size, 2)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"text/a.txt": b"x", "file": b"x"})
    with pytest.raises(DataConfigError, match=r"spec\.data\.prepared: '.*file/out' cannot be written: Not a directory"):
        prepare(data_of(tmp_path / "text", tmp_path / "file/out"))


def kill_this_process(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_an_error_that_may_be_tried_again() -> None:
    with pytest.raises(PreparationDiedError, match="a preparing process was killed"):
        list(run_all(kill_this_process, range(8), processes=2))


def run_main(data: Data, folder: Path, length: int = 16) -> tuple[int, str, str]:
    path = folder / "run.json"
    path.write_text(run_config(data, length).to_json())
    with main_process(path) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.mark.parametrize(
    "texts, changes, code, message",
    [
        (TEXTS, {}, 0, ""),
        (TEXTS, {"source": Source(kind="path", path="no/such")}, 64, "spec.data.source.path: 'no/such' does not exist"),
        (TEXTS, {"tokenizer": "no.json"}, 64, "spec.data.tokenizer: 'no.json' cannot be read"),
        ({"a.txt": b"x", "b.txt": b"y"}, {"held_out_fraction": 0.6}, 64, "spec.context.length: 16 tokens, but the"),
        ({**TEXTS, **BAD}, {}, 65, "spec.data.source: 2 bad documents"),
        (
            {**TEXTS, **BAD},
            {"on_error": "skip"},
            0,
            "Skipped as spec.data.onError says: 1 empty, 1 not-utf-8; named",
        ),
    ],
)
def test_the_command_says_who_must_act(
    tmp_path: Path, texts: dict[str, bytes], changes: dict[str, object], code: int, message: str
) -> None:
    data = data_of(write_corpus(tmp_path / "text", texts), tmp_path / "out", **changes)
    returned, out, err = run_main(data, tmp_path)
    assert (returned, "Traceback" in err) == (code, False), err
    assert err.startswith(message)
    assert bool(err) == bool(message)
    assert ("40 documents: " in out) == (code == 0)


@pytest.mark.parametrize("content, message", [(None, "No such file"), ("{}", "RunConfig.version: None")])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "run.json"
    if content:
        path.write_text(content)
    with main_process(path) as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in err) == (64, False)
    assert message in err


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 MB of JSONL, some 30 shards."""
    root = tmp_path_factory.mktemp("large")
    lines = json_lines([{"text": "ring attention " * 4000}] * 200)
    return write_corpus(root, {f"{i}.jsonl": lines for i in range(3)})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, large: Path, number: signal.Signals) -> None:
    data = data_of(large, tmp_path / "out", source=jsonl_source(large), workers=2)
    path = tmp_path / "run.json"
    path.write_text(run_config(data).to_json())
    with main_process(path) as process:
        wait_for_shards(tmp_path / "out", 1, process)
        if number == signal.SIGINT:  # Ctrl-C reaches the whole group
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (143, "")
        wait_for_end_of_group(process.pid)
    assert not list((tmp_path / "out").glob("*/dataset.json"))


def test_a_killed_preparation_leaves_no_process_behind(tmp_path: Path, large: Path) -> None:
    data = data_of(large, tmp_path / "out", source=jsonl_source(large), workers=2)
    path = tmp_path / "run.json"
    path.write_text(run_config(data).to_json())
    with main_process(path) as process:
        wait_for_shards(tmp_path / "out", 1, process)
        process.kill()
        wait_for_end_of_group(process.pid)


def wait_for_end_of_group(group: int) -> None:
    """Until no living process is in the group. A dead one that nobody has waited for yet counts as dead."""
    deadline = time.monotonic() + 20
    while living := [s for s in map(read_stat, Path("/proc").glob("[0-9]*/stat")) if in_group(s, group)]:
        assert time.monotonic() < deadline, living
        time.sleep(0.02)


def in_group(stat: list[str], group: int) -> bool:
    return stat[2:3] == [str(group)] and stat[0] != "Z"


def read_stat(path: Path) -> list[str]:
    """Of a process: state, parent, group and more; nothing if it has ended."""
    try:
        return path.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def test_no_torch_is_imported() -> None:
    program = "import sys, ring_worker.data.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
