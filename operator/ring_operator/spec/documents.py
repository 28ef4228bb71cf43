"""Text to plain values, with the line of each: YAML 1.2's core, JSON included, several documents in one text.

PyYAML's own loader would let pass what hurts later: it keeps the last of two equal keys in silence, reads `3e-4` as a
string and `2026-01-01` as a date, and follows aliases until the memory is full. So only its parser is used, its events
are counted before anything is built, and the values are built here. Every fault is one line with file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ring_operator.errors import Fault, UserError

MAX_CHARACTERS = 262_144
MAX_DEPTH = 32
MAX_VALUES = 20_000  # of all documents together, aliases counted as often as they are used
MAX_DIGITS = 40

Place = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """One document: its value, and the line (from 1) of each value in it. `source`: the file's name.

    `overwritten`: places whose value does not come from the file, with where it does come from.
    """

    value: Any
    source: str
    lines: dict[Place, int] = field(default_factory=dict)
    overwritten: dict[Place, str] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """Line of a place, or of the nearest place around it that is written in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def where(self, place: Place) -> str:
        """`file:line` of a place; objects that come from no text have no lines."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.overwritten:
                return self.overwritten[place[:end]]
        return f"{self.source}:{self.line(place)}" if self.lines else self.source


def read_documents(text: str, source: str) -> list[Document]:
    """All documents of a text that are not empty. Raises UserError with `source` and the line."""
    if len(text) > MAX_CHARACTERS:
        raise _bad(source, 1, f"{len(text):,} characters, but at most {MAX_CHARACTERS:,} are read")
    text = _json_without_tabs(text)
    try:
        _limit(text, source)
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _bad(source, mark.line + 1 if mark else 1, _said(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _bad(source, line, f"the character {error.character:#06x} does not belong in YAML") from None
    builder = _Builder(source)
    return [builder.document(node) for node in nodes if node is not None and not _is_empty(node)]


def parse_value(text: str, source: str) -> Any:
    """The value of one short text, such as the right side of `--set path=value`; None where it is empty."""
    documents = read_documents(text, source)
    return documents[0].value if documents else None


def _json_without_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses; inside JSON's strings there are none."""
    if "\t" not in text or not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.replace("\t", " ")


def _limit(text: str, source: str) -> None:
    """Go once over the events, before anything recurses or grows."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1  # type: ignore[union-attr]
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _bad(source, line, f"nested {depth} deep, but at most {MAX_DEPTH} levels are read")
        if count > 2 * MAX_VALUES:
            raise _bad(source, line, f"more than {MAX_VALUES:,} values")


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    """What the parser found, in a person's words where the cause is a common one."""
    mark = error.problem_mark
    if mark is not None and "\t" in _line(text, mark.line)[: mark.column + 1]:
        return "a tab where YAML wants spaces"
    problem = re.sub(r"\s+", " ", str(error.problem or error.context or "not YAML"))
    return f"not YAML: {problem}"


def _line(text: str, index: int) -> str:
    lines = text.splitlines()
    return lines[index] if index < len(lines) else ""


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "" and node.style is None


def _bad(source: str, line: int, message: str, remedy: str = "") -> UserError:
    return UserError([Fault("", message, remedy, f"{source}:{line}")])


# Tags that PyYAML gives to values without one; what they mean is decided here, by `plain_scalar`.
_STANDARD = "tag:yaml.org,2002:"
_TAGS = frozenset(["str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq"])


class _Builder:
    """Builds plain values from nodes and counts them, so that aliases cannot multiply without end."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0

    def document(self, node: yaml.Node) -> Document:
        document = Document(None, self.source)
        document.value = self._value(node, (), document.lines)
        return document

    def _value(self, node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > MAX_VALUES or len(place) > MAX_DEPTH:
            raise _bad(self.source, line, f"aliases make more than {MAX_VALUES:,} values or {MAX_DEPTH} levels of this")
        if node.tag.removeprefix(_STANDARD) not in _TAGS:
            raise _bad(self.source, line, f"the tag {node.tag.replace(_STANDARD, '!!')} is not read")
        lines.setdefault(place, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, lines)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*place, i), lines) for i, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        text = self._text(node)
        return text if node.style is not None else plain_scalar(text)

    def _mapping(self, node: yaml.MappingNode, place: Place, lines: dict[Place, int]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, child in self._entries(node):
            line, name = key.start_mark.line + 1, self._text(key)
            if name in result:
                raise _bad(self.source, line, f"{name!r} stands twice in the same mapping")
            lines[(*place, name)] = line
            result[name] = self._value(child, (*place, name), lines)
        return result

    def _text(self, node: yaml.ScalarNode) -> str:
        """JSON writes characters beyond 16 bits as two escapes, which belong together; one alone is no character."""
        try:
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise _bad(self.source, node.start_mark.line + 1, "half of a surrogate pair") from None

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _bad(self.source, line, "a mapping or list as a key; keys are words")
            if key.value == "<<" and key.style is None:
                raise _bad(self.source, line, "merge keys (<<) are not read", "Write the fields out.")
            yield key, child


_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset(["", "~", "null", "Null", "NULL"])
_INT = re.compile(rf"[-+]?[0-9](_?[0-9]){{0,{MAX_DIGITS}}}")
_FLOAT = re.compile(rf"[-+]?(\.[0-9]+|[0-9](_?[0-9]){{0,{MAX_DIGITS}}}(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def plain_scalar(text: str) -> bool | int | float | str | None:
    """The value of an unquoted word by YAML 1.2's core schema: numbers may have `_` between digits."""
    if text in _NULLS:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
