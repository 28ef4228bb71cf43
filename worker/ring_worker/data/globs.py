"""Glob patterns on relative paths: `*`, `?` and `[...]` stay within a folder, `**` crosses folders.

As in a shell, a wildcard does not match a leading dot when it selects (`.git` is not training text unless a pattern
names it), but it does when it excludes. A pattern that ends in `/` means all below that folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ring_worker.data.errors import DataConfigError

_WILD = frozenset("*?[")
_NOT_HIDDEN = r"(?!\.)"


def has_wildcard(text: str) -> bool:
    return any(character in _WILD for character in text)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which relative paths are wanted: all of `required` match, one of `include` does, none of `exclude`."""

    required: tuple[re.Pattern[str], ...]
    include: tuple[re.Pattern[str], ...]
    exclude: tuple[re.Pattern[str], ...]
    closed_folders: tuple[re.Pattern[str], ...]
    enters_hidden: bool
    deepest: float  # names in the longest path that can match

    @classmethod
    def of(cls, include: Sequence[str], exclude: Sequence[str], required: Sequence[str] = ()) -> Selection:
        """An empty `include` is `**`. Raises DataConfigError for a pattern that cannot be read."""
        selecting = [*include, *required]
        return cls(
            required=tuple(_compile(p, "path", hidden=False) for p in required),
            include=tuple(_compile(p, "include", hidden=False) for p in include or ["**"]),
            exclude=tuple(_compile(p, "exclude", hidden=True) for p in exclude),
            closed_folders=tuple(_compile(p[:-3], "exclude", hidden=True) for p in exclude if p.endswith("/**")),
            enters_hidden=any(segment.startswith(".") for p in selecting for segment in p.split("/")),
            deepest=min([max(map(_depth, include), default=math.inf), *map(_depth, required)]),
        )

    def wants(self, path: str) -> bool:
        return (
            all(p.fullmatch(path) for p in self.required)
            and any(p.fullmatch(path) for p in self.include)
            and not any(p.fullmatch(path) for p in self.exclude)
        )

    def enters(self, folder: str) -> bool:
        """Whether anything below `folder` can be wanted; False saves the walk through it."""
        if folder.count("/") + 1 >= self.deepest:
            return False
        hidden = folder.rsplit("/", 1)[-1].startswith(".") and not self.enters_hidden
        return not hidden and not any(p.fullmatch(folder) for p in self.closed_folders)


def _depth(pattern: str) -> float:
    """Names in the paths that a pattern matches."""
    segments = pattern.split("/")
    return math.inf if "**" in segments or not segments[-1] else len(segments)


def _compile(pattern: str, name: str, hidden: bool) -> re.Pattern[str]:
    try:
        return re.compile(_translate(pattern, hidden), re.DOTALL)
    except re.error as error:
        raise DataConfigError(f"spec.data.source.{name}: {pattern!r} is not a glob pattern: {error}") from None


def _translate(pattern: str, hidden: bool) -> str:
    segments = (pattern + "**" if pattern.endswith("/") else pattern).split("/")
    if segments[-1] == "**":
        segments.append("*")
    guard = "" if hidden else _NOT_HIDDEN
    parts = [rf"(?:{guard}[^/]+/)*" if s == "**" else _segment(s, guard) + "/" for s in segments[:-1]]
    return "".join(parts) + _segment(segments[-1], guard)


def _segment(segment: str, guard: str) -> str:
    """One name between slashes. `***` is `*`: stars in a row would only make the matching slow."""
    tokens = re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", segment, re.DOTALL)
    wild_start = bool(tokens) and tokens[0][0] in _WILD
    return (guard if wild_start else "") + "".join(_token(t) for t in tokens)


def _token(token: str) -> str:
    if token[0] == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if token[0] == "[" and len(token) > 1:
        body = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[^{body[1:]}]" if body.startswith("!") else f"[{body}]"
    return re.escape(token)
