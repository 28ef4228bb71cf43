"""Small corpora on disk, and plain Python that knows what must come out of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ring_worker.contract import (
    Checkpoint,
    Context,
    Data,
    Degrees,
    Evaluation,
    Model,
    RunConfig,
    Source,
    Training,
)
from ring_worker.data.heldout import share_of

BOS = 256


def write_corpus(root: Path, texts: dict[str, bytes]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text)
    return root


def word_corpus(documents: int, seed: int = 0, words: int = 60) -> dict[str, bytes]:
    """Texts of unequal length in folders, with letters of several bytes."""
    draw = random.Random(seed)
    vocabulary = ["ring", "ähre", "attention", "東京", "of", "a", "block\n", "🙂", "mask"]
    return {
        f"part{i % 3}/text{i:03d}.txt": " ".join(draw.choices(vocabulary, k=1 + draw.randrange(words))).encode()
        for i in range(documents)
    }


def data_of(root: Path, prepared: Path, **changes: object) -> Data:
    """Text files below `root`; a fifth held out, one process, unless `changes` say otherwise."""
    fields: dict[str, object] = {"source": Source(kind="path", path=str(root)), "held_out_fraction": 0.2, "workers": 1}
    return Data(prepared=str(prepared), **{**fields, **changes})  # type: ignore[arg-type]


def jsonl_source(path: Path, field: str = "text") -> Source:
    return Source(kind="jsonl", path=str(path), field=field)


def run_config(data: Data, length: int = 16) -> RunConfig:
    return RunConfig(
        job="job",
        job_uid="uid",
        device="cpu",
        degrees=Degrees(),
        model=Model(layers=1, hidden=8, heads=1, kv_heads=1, head_dim=8, feed_forward=8),
        context=Context(length=length),
        data=data,
        training=Training(steps=1),
        checkpoint=Checkpoint(path="unused"),
        evaluation=Evaluation(),
        output="unused",
    )


def streams_of(texts: dict[str, bytes], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out stream of bytes, said plainly."""
    training: list[int] = []
    held_out: list[int] = []
    for name, text in sorted(texts.items()):
        (held_out if share_of(name, seed) < fraction else training).extend([BOS, *text])
    return training, held_out


def prepared_files(folder: Path) -> dict[str, bytes]:
    """Everything in a preparation's folder but the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@contextmanager
def preparing(config: RunConfig, shard_bytes: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that prepares as `python -m ring_worker.data` does, with shards of `shard_bytes`; killed at the end."""
    program = (
        "import sys; from ring_worker.contract import RunConfig; from ring_worker.data.prepare import prepare\n"
        "print(prepare(RunConfig.from_json(open(sys.argv[1]).read()).data, int(sys.argv[2])), flush=True)"
    )
    path = folder / f"config-{time.monotonic_ns()}.json"
    path.write_text(config.to_json())
    with _process([sys.executable, "-c", program, str(path), str(shard_bytes)], dict(os.environ)) as process:
        yield process


@contextmanager
def main_process(config_file: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m ring_worker.data`; killed at the end."""
    environment = {**os.environ, "RING_CONFIG": str(config_file)}
    with _process([sys.executable, "-m", "ring_worker.data"], environment) as process:
        yield process


@contextmanager
def _process(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def json_lines(objects: Sequence[object]) -> bytes:
    return "".join(json.dumps(o) + "\n" for o in objects).encode()
