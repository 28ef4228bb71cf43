"""Which keys a query may see, as one interval of positions.

A query at position q attends to the keys `[lo(q), hi(q))`. Causal, sliding window, chunked-local and packed documents,
and any of them together, are such intervals (the largest of the los, the smallest of the his), so everything behind
this module knows intervals only and no mask by name. Both bounds never decrease with q; the schedule rests on that.
A combination that is no interval is refused here, never approximated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mask:
    """The keys that a query sees. The default is causal.

    `window`: tokens a causal query sees, itself included. `chunk`: tokens in the chunks that do not see each other,
    counted from position 0. `documents`: positions at which packed documents start, ascending, the first 0.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    documents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, tokens in (("window", self.window), ("chunk", self.chunk)):
            if tokens is not None and tokens < 1:
                raise ValueError(f"mask: {name} is {tokens} tokens, but must be at least 1")
        if self.window is not None and not self.causal:
            raise ValueError("mask: a window looks back from its query; it needs causal=True")
        if self.documents and (self.documents[0] != 0 or any(np.diff(self.documents) <= 0)):
            raise ValueError(f"mask: documents must ascend from 0, not {list(self.documents[:8])}")

    def bounds(self, queries: Positions, length: int) -> tuple[Positions, Positions]:
        """(lo, hi) of the half-open key intervals of these query positions, in a sequence of `length` tokens."""
        lo = np.zeros_like(queries)
        hi = queries + 1 if self.causal else np.full_like(queries, length)
        if self.window is not None:
            lo = np.maximum(lo, queries - self.window + 1)
        if self.chunk is not None:
            start = queries // self.chunk * self.chunk
            lo, hi = np.maximum(lo, start), np.minimum(hi, start + self.chunk)
        if self.documents:
            starts = np.append(np.asarray(self.documents, dtype=np.int64), length)
            document = np.searchsorted(starts, queries, side="right") - 1
            lo, hi = np.maximum(lo, starts[document]), np.minimum(hi, starts[document + 1])
        return lo, np.minimum(hi, length)


CAUSAL = Mask()
FULL = Mask(causal=False)
