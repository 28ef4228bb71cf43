"""Prepare once: list the source, make the shards that are missing, join their indexes, say that it is complete.

The folder's name is a fingerprint of all that the tokens depend on, so a changed source is a new preparation and an
interrupted one goes on. One process on the file system works on it at a time; the others wait for it and then find
the work done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from ring_worker.contract import Data, PreparationProgress
from ring_worker.data.errors import BadInputError, DataConfigError
from ring_worker.data.faults import LISTED, Fault, count_kinds, describe_kinds, stop_for
from ring_worker.data.files import locked, remove_temporary, write_atomic
from ring_worker.data.heldout import none_held_out, none_left
from ring_worker.data.join import Joined, join_shards, read_faults, read_indexes
from ring_worker.data.ngrams import CountingFigures, counting_figures
from ring_worker.data.shards import (
    Recipe,
    Shard,
    count_line_ends,
    finished_report,
    make_shard,
    plan_shards,
    range_borders,
    shard_bytes_for,
    token_type,
)
from ring_worker.data.sources import Listing, list_source
from ring_worker.data.stored import (
    DatasetInfo,
    KindCount,
    Split,
    dataset_file,
    fingerprint,
    point_to,
    tokenizer_file,
)
from ring_worker.data.tokenizers import BYTES, load_tokenizer, read_tokenizer_file
from ring_worker.data.work import available_cores, run_all

PROGRESS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One preparation. `shard_bytes`: bound of the source bytes in a shard, but for larger files."""

    data: Data
    listing: Listing
    recipe: Recipe
    fingerprint: str
    shard_bytes: int

    @property
    def folder(self) -> Path:
        return self.recipe.folder

    @property
    def processes(self) -> int:
        return self.data.workers or available_cores()

    @property
    def stops(self) -> bool:
        return self.data.on_error == "stop"


def prepare(data: Data, shard_bytes: int = 0) -> Path:
    """Folder of the complete preparation. `shard_bytes` 0: by the size of the source.

    Raises DataConfigError, BadInputError (under `on_error: stop`), PreparationDiedError.
    """
    job = _start_job(data, shard_bytes)
    if not dataset_file(job.folder).exists():
        with locked(job.folder / "lock", partial(_say_waiting, job.folder)):
            if not dataset_file(job.folder).exists():  # perhaps another process has made it meanwhile
                _build(job)
    if job.stops and (faults := read_faults(job.folder)):
        raise stop_for(faults, complete=True)
    point_to(data, job.fingerprint)
    return job.folder


def _start_job(data: Data, shard_bytes: int) -> _Job:
    """List the source, check the tokenizer, and make the folder."""
    prepared = Path(data.prepared)
    tokenizer = load_tokenizer(data.tokenizer)
    listing = list_source(data.source, leave_out=prepared)
    name = fingerprint(data, listing, tokenizer.fingerprint)
    folder = prepared / name
    _make_folder(folder / "shards", prepared)
    kept = BYTES if data.tokenizer == BYTES else str(tokenizer_file(folder))
    recipe = Recipe(folder, listing.root, listing.field, kept, data.held_out_fraction, data.seed)
    return _Job(data, listing, recipe, name, shard_bytes or shard_bytes_for(listing.size_bytes))


def _make_folder(folder: Path, prepared: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataConfigError(
            f"spec.data.prepared: {str(prepared)!r} cannot be written: {error.strerror}. Name a folder that can."
        ) from None


def _say_waiting(folder: Path) -> None:
    print(f"Another process prepares the same data in {folder}; waiting for it.", file=sys.stderr, flush=True)


def _build(job: _Job) -> None:
    """Everything up to dataset.json. The caller holds the lock."""
    for folder in (job.folder, job.folder / "shards"):
        remove_temporary(folder)
    if job.data.tokenizer != BYTES:
        write_atomic(tokenizer_file(job.folder), read_tokenizer_file(job.data.tokenizer))
    shards = plan_shards(job.listing, job.shard_bytes, _line_ends(job))
    if _make_shards(job, shards) and job.stops:
        raise stop_for([f for index in read_indexes(job.folder, len(shards)) for f in index.faults], complete=True)
    joined = join_shards(job.folder, len(shards))
    _check_splits(job, joined)
    write_atomic(dataset_file(job.folder), _describe(job, joined).to_json())


@dataclass(frozen=True, slots=True)
class _Range:
    path: str
    number: int
    start: int
    stop: int


def _line_ends(job: _Job) -> Mapping[str, list[int]]:
    """Line ends in each range of the JSONL files that are cut, so that every range knows the number of its first line.

    Kept in a file, since it costs a reading of the whole source.
    """
    if job.listing.field is None:
        return {}
    kept = job.folder / f"lines-{job.shard_bytes}.json"
    if not kept.exists():
        write_atomic(kept, json.dumps(_count_ranges(job)))
    return dict(json.loads(kept.read_text()))


def _count_ranges(job: _Job) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    ranges = []
    for file in job.listing.files:
        borders = range_borders(file.size_bytes, job.shard_bytes)
        counts[file.path] = [0] * (len(borders) - 1)
        if len(borders) > 2:
            ranges += [_Range(file.path, n, a, b) for n, (a, b) in enumerate(pairwise(borders))]
    for done, ends in run_all(partial(_count_range, job.listing.root), ranges, job.processes):
        counts[done.path][done.number] = ends
    return counts


def _count_range(root: str, part: _Range) -> tuple[_Range, int]:
    return part, count_line_ends(Path(root) / part.path, part.start, part.stop)


class _Progress:
    """Writes progress.json at the start, at the end, and about once a second between."""

    def __init__(self, job: _Job) -> None:
        self._path = Path(job.data.prepared) / "progress.json"
        self._total_files, self._total_bytes = len(job.listing.files), job.listing.size_bytes
        self._files = self._bytes = self.skipped = 0
        self._written = 0.0

    def add(self, shard: Shard, faults: int) -> None:
        self._files += shard.files
        self._bytes += shard.size_bytes
        self.skipped += faults
        if time.monotonic() - self._written >= PROGRESS_SECONDS:
            self.write()

    def write(self) -> None:
        now = PreparationProgress(self._files, self._total_files, self._bytes, self._total_bytes, self.skipped)
        write_atomic(self._path, now.to_json(), durable=False)
        self._written = time.monotonic()


def _make_shards(job: _Job, shards: Sequence[Shard]) -> int:
    """Make the shards that no earlier start has finished; the number of faults in all.

    Under `on_error: stop`, give up when a message is full.
    """
    progress = _Progress(job)
    found: list[tuple[int, tuple[Fault, ...]]] = []
    missing = []
    for shard in shards:
        report = finished_report(job.recipe, shard.number)
        if report is None:
            missing.append(shard)
        else:
            progress.add(shard, report.faults)
            found.append((report.number, report.first))
    progress.write()
    with closing(run_all(partial(make_shard, job.recipe), missing, job.processes)) as reports:
        for report in reports:
            progress.add(shards[report.number], report.faults)
            found.append((report.number, report.first))
            faults = [fault for _, first in sorted(found, key=lambda f: f[0]) for fault in first]
            if job.stops and len(faults) >= LISTED:
                raise stop_for(faults, complete=False)
    progress.write()
    return progress.skipped


def _check_splits(job: _Job, joined: Joined) -> None:
    """Raises where there is nothing to train on, or nothing held out although something should be."""
    training, held_out = (joined.splits[s].totals().documents for s in (Split.TRAINING, Split.HELD_OUT))
    if not training and not held_out:
        kinds = describe_kinds(count_kinds(joined.faults))
        raise BadInputError(f"spec.data.source: no document is left, all {len(joined.faults)} are bad ({kinds}).")
    fraction, seed = job.data.held_out_fraction, job.data.seed
    ids = (
        i for index in read_indexes(job.folder, len(joined.shards)) for part in index.parts.values() for i in part.ids
    )
    if not training:
        raise none_left(fraction, seed, ids)
    if not held_out and fraction > 0:
        raise none_held_out(fraction, seed, ids)


def _describe(job: _Job, joined: Joined) -> DatasetInfo:
    tokenizer = load_tokenizer(job.recipe.tokenizer)
    figures = _figures(joined)
    kinds = count_kinds(joined.faults)
    return DatasetInfo(
        fingerprint=job.fingerprint,
        tokenizer=tokenizer.fingerprint,
        vocabulary=tokenizer.vocabulary,
        bos=tokenizer.bos,
        dtype=np.dtype(token_type(tokenizer.vocabulary)).str,
        seed=job.data.seed,
        training=joined.splits[Split.TRAINING].totals(),
        heldout=joined.splits[Split.HELD_OUT].totals(),
        unigram_bits_per_byte=figures.unigram if figures else None,
        bigram_bits_per_byte=figures.bigram if figures else None,
        skipped=tuple(KindCount(kind, count) for kind, count in kinds.items()),
        shards=tuple(joined.shards),
    )


def _figures(joined: Joined) -> CountingFigures | None:
    held_out = joined.splits[Split.HELD_OUT]
    if not held_out.totals().documents:
        return None
    return counting_figures(joined.splits[Split.TRAINING].bigrams, held_out.bigrams)
