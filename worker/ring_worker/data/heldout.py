"""Which documents are held out: a property of a document's id and the seed, whatever the others are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from ring_worker.data.errors import DataConfigError

_SCALE = float(1 << 64)


def share_of(document_id: str, seed: int) -> float:
    """A number in [0, 1), as good as random, but always the same: the document is held out below the fraction."""
    key = f"{seed}\0{document_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / _SCALE


def none_held_out(fraction: float, seed: int, ids: Iterable[str]) -> DataConfigError:
    """The error for a fraction above 0 that takes none of the documents `ids`."""
    shares = sorted((share_of(i, seed), i) for i in ids)
    lowest, name = shares[0]
    if len(shares) == 1:
        return _single(name)
    return DataConfigError(
        f"spec.data.heldOut.fraction: {fraction:g} of {len(shares)} documents holds out none. "
        f"{math.ceil(lowest * 1000 + 0.5) / 1000:g} would hold out {name!r}; another spec.data.seed chooses others; "
        "0 holds out none on purpose."
    )


def none_left(fraction: float, seed: int, ids: Iterable[str]) -> DataConfigError:
    """The error for a fraction that takes all of the documents `ids`."""
    shares = sorted((share_of(i, seed), i) for i in ids)
    highest, name = shares[-1]
    if len(shares) == 1:
        return _single(name)
    return DataConfigError(
        f"spec.data.heldOut.fraction: {fraction:g} of {len(shares)} documents holds out all, so none is trained on. "
        f"{math.floor(highest * 1000) / 1000:g} would train on {name!r}; another spec.data.seed chooses others."
    )


def _single(name: str) -> DataConfigError:
    return DataConfigError(
        f"spec.data.source: it is a single document ({name!r}), but whole documents are held out. "
        "Split it into several, or set spec.data.heldOut.fraction: 0."
    )
