"""What lies in the folder of the prepared data, and how it is found again.

    PREPARED/progress.json                     how far the preparation is, for people who wait
    PREPARED/current-CONFIG.json               which preparation belongs to this configuration: no rank lists the source
    PREPARED/FINGERPRINT/dataset.json          `DatasetInfo`; written last: with it, the preparation is complete
                        /tokenizer.json        a copy, if there is one: ids cannot change under a model
                        /skipped.jsonl         the faults, one a line
                        /training.starts.npy   int64 [documents + 1]: where each begins in its stream; the end
                        /training.bytes.npy    int64 [documents]: its bytes
                        /training.ids.jsonl    its id, a JSON string a line; likewise heldout.*
                        /shards/000000.training.bin, 000000.heldout.bin   token ids, little endian
                        /shards/000000.npz     the shard's documents and counts; written last: with it, it is finished

Both streams are documents in the source's order, each as BOS and its tokens.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ring_worker.contract import ContractError, Data
from ring_worker.contract.strict import VERSION, dump, load
from ring_worker.data.errors import BadInputError, DataConfigError
from ring_worker.data.files import write_atomic
from ring_worker.data.sources import Listing

FORMAT = 1  # of the files above; another one is another preparation


class Split(enum.StrEnum):
    TRAINING = "training"
    HELD_OUT = "heldout"


@dataclass(frozen=True, slots=True)
class ShardTokens:
    training: int
    heldout: int

    def of(self, split: Split) -> int:
        return self.training if split is Split.TRAINING else self.heldout


@dataclass(frozen=True, slots=True)
class SplitTotals:
    documents: int
    bytes: int
    tokens: int  # BOS included


@dataclass(frozen=True, slots=True)
class KindCount:
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """`dtype` as numpy names it. The figures in bits per byte are None where nothing is held out."""

    fingerprint: str
    tokenizer: str
    vocabulary: int
    bos: int
    dtype: str
    seed: int
    training: SplitTotals
    heldout: SplitTotals
    unigram_bits_per_byte: float | None
    bigram_bits_per_byte: float | None
    skipped: tuple[KindCount, ...]
    shards: tuple[ShardTokens, ...]
    version: int = VERSION

    def to_json(self) -> str:
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return load(cls, text, "dataset.json")


def config_key(data: Data) -> str:
    """What the prepared tokens depend on, as far as the configuration says it. A relative path is this folder's."""
    wanted = {
        "source": {**asdict(data.source), "path": str(Path(data.source.path).absolute())},
        "tokenizer": data.tokenizer,
        "held_out_fraction": data.held_out_fraction,
        "seed": data.seed,
        "format": FORMAT,
    }
    return _digest(json.dumps(wanted, sort_keys=True))


def fingerprint(data: Data, listing: Listing, tokenizer_fingerprint: str) -> str:
    """What the prepared tokens depend on: a file more, another length or time of change makes another one."""
    head = [FORMAT, tokenizer_fingerprint, data.held_out_fraction, data.seed, listing.field]
    files = [[f.path, f.size_bytes, f.mtime_ns, f.unreadable] for f in listing.files]
    return _digest(json.dumps([head, files]))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def dataset_file(folder: Path) -> Path:
    return folder / "dataset.json"


def skipped_file(folder: Path) -> Path:
    return folder / "skipped.jsonl"


def tokenizer_file(folder: Path) -> Path:
    return folder / "tokenizer.json"


def shard_file(folder: Path, number: int, kind: str) -> Path:
    """`kind`: training.bin, heldout.bin or npz."""
    return folder / "shards" / f"{number:06d}.{kind}"


def index_file(folder: Path, split: Split, column: str) -> Path:
    """`column`: starts.npy, bytes.npy or ids.jsonl."""
    return folder / f"{split}.{column}"


def point_to(data: Data, fingerprint: str) -> None:
    """Make this the preparation that `prepared_folder` finds. Where it is, nothing is written: it may be read-only."""
    pointer, content = _pointer(data), json.dumps({"fingerprint": fingerprint})
    if not pointer.exists() or pointer.read_text() != content:
        write_atomic(pointer, content)


def prepared_folder(data: Data) -> Path:
    """Folder of the complete preparation for this configuration. Raises DataConfigError when there is none."""
    try:
        folder = Path(data.prepared) / str(json.loads(_pointer(data).read_text())["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise _not_prepared(data) from None
    if not dataset_file(folder).exists():
        raise _not_prepared(data)
    return folder


def read_info(folder: Path) -> DatasetInfo:
    try:
        return DatasetInfo.from_json(dataset_file(folder).read_text())
    except (OSError, ContractError) as error:
        raise damaged(folder, str(error)) from None


def damaged(folder: Path, what: str) -> BadInputError:
    return BadInputError(f"{folder}: the prepared data are damaged: {what}. Delete this folder and prepare again.")


def _pointer(data: Data) -> Path:
    return Path(data.prepared) / f"current-{config_key(data)}.json"


def _not_prepared(data: Data) -> DataConfigError:
    return DataConfigError(
        f"spec.data.prepared: {data.prepared!r} holds no data prepared for this configuration. "
        "Run `python -m ring_worker.data` with it first."
    )
