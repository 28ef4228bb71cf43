"""A document that cannot be used: where it is, and why. Nothing is left out of the training text without one."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from ring_worker.data.errors import BadInputError

LISTED = 20  # faults named in a message; all are counted


class FaultKind(enum.StrEnum):
    UNREADABLE = "unreadable"
    CHANGED = "changed"  # between the listing and the reading
    NOT_UTF8 = "not-utf-8"
    NOT_JSON = "not-json"
    NO_FIELD = "no-field"
    NOT_A_STRING = "not-a-string"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Fault:
    """`file` relative to the source. `line` from 1, 0: the whole file. `offset` in bytes of the file, -1: none."""

    kind: str
    file: str
    line: int
    offset: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.reason}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Fault:
        return cls(**json.loads(text))


def count_kinds(faults: Iterable[Fault]) -> dict[str, int]:
    return dict(sorted(Counter(f.kind for f in faults).items()))


def describe_kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def stop_for(faults: Sequence[Fault], complete: bool) -> BadInputError:
    """The error under `onError: stop`. `complete`: `faults` are all that there are, not only those found so far."""
    lines = [f"  {fault}" for fault in faults[:LISTED]]
    if len(faults) > LISTED:
        lines.append(f"  and {len(faults) - LISTED} more")
    found = f"{len(faults)} bad document{'s' if len(faults) != 1 else ''}"
    head = found if complete else f"at least {found}"
    return BadInputError(
        f"spec.data.source: {head} ({describe_kinds(count_kinds(faults))}):\n"
        + "\n".join(lines)
        + "\n  Mend them, leave them out with spec.data.source.exclude, or set spec.data.onError: skip."
    )
