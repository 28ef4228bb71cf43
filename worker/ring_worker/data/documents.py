"""The documents of a piece of the source, or the faults in their place: every one read yields exactly one of them.

The text stays as it is in the file, byte for byte (byte order marks, line ends and NULs included); it only has to be
UTF-8. JSONL is streamed by line, and a long file is cut into ranges of bytes that are read independently: a line
belongs to the range in which it starts.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ring_worker.data.faults import Fault, FaultKind
from ring_worker.data.sources import SourceFile


@dataclass(frozen=True, slots=True)
class Document:
    """`file` relative to the source; `line` from 1, 0: the whole file. `text` is UTF-8, at least one byte."""

    file: str
    line: int
    text: bytes

    @property
    def id(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a file, read by one process: bytes `start .. stop`, `lines_before` line ends before `start`."""

    file: SourceFile
    start: int
    stop: int
    lines_before: int = 0

    @property
    def last(self) -> bool:
        """Whether the file ends here."""
        return self.stop == self.file.size_bytes


def read_piece(root: str, piece: Piece, field: str | None) -> Iterator[Document | Fault]:
    """All documents of a piece, in order. `field`: of a JSONL line, None where the whole file is one document."""
    file = piece.file
    if file.unreadable:
        yield Fault(FaultKind.UNREADABLE, file.path, 0, -1, f"cannot be read: {file.unreadable}")
        return
    try:
        with (Path(root) / file.path).open("rb") as stream:
            if change := _change(stream, file):
                yield Fault(FaultKind.CHANGED, file.path, 0, -1, change)
            elif not file.size_bytes:
                yield Fault(FaultKind.EMPTY, file.path, 0, -1, "the file is empty")
            elif field is None:
                yield _check(file.path, stream.read())
            else:
                yield from _lines(stream, piece, field)
    except OSError as error:
        yield Fault(FaultKind.UNREADABLE, file.path, 0, -1, f"cannot be read: {error.strerror or error}")


def _change(stream: BinaryIO, file: SourceFile) -> str:
    now = os.fstat(stream.fileno())
    if (now.st_size, now.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
        return ""
    return f"changed while the data were prepared ({file.size_bytes} bytes then, {now.st_size} now); start again"


def _check(path: str, text: bytes) -> Document | Fault:
    """A whole file as a document."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return _not_utf8(path, line, error, offset=error.start)
    return Document(path, 0, text)


def _lines(stream: BinaryIO, piece: Piece, field: str) -> Iterator[Document | Fault]:
    number = piece.lines_before
    position = piece.start
    stream.seek(position)
    if position and not _at_line_start(stream, position):
        position += len(stream.readline())  # belongs to the range before
        number += 1
    while position < piece.stop:
        raw = stream.readline()
        number += 1
        yield _parse_line(_Line(piece.file.path, number, position, raw), field)
        position += len(raw)


def _at_line_start(stream: BinaryIO, position: int) -> bool:
    stream.seek(position - 1)
    return stream.read(1) == b"\n"


@dataclass(frozen=True, slots=True)
class _Line:
    file: str
    number: int
    offset: int
    raw: bytes

    def fault(self, kind: FaultKind, reason: str) -> Fault:
        return Fault(kind, self.file, self.number, -1, reason)


def _parse_line(line: _Line, field: str) -> Document | Fault:
    raw = line.raw.removeprefix(codecs.BOM_UTF8) if line.offset == 0 else line.raw  # no part of the JSON
    try:
        value = json.loads(raw.decode().rstrip("\r\n"))  # else an error at the end is in line 2
    except UnicodeDecodeError as error:
        offset = line.offset + len(line.raw) - len(raw) + error.start
        return _not_utf8(line.file, line.number, error, offset)
    except json.JSONDecodeError as error:
        reason = "an empty line" if not raw.strip() else f"{error.msg} at column {error.colno}"
        return line.fault(FaultKind.NOT_JSON, f"not JSON: {reason}")
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; brackets in brackets
        return line.fault(FaultKind.NOT_JSON, f"not JSON that can be read: {error}")
    return _take_field(line, value, field)


def _take_field(line: _Line, value: object, field: str) -> Document | Fault:
    if not isinstance(value, dict):
        return line.fault(FaultKind.NO_FIELD, f"{_name(value)}, not an object with the field {field!r}")
    if field not in value:
        return line.fault(FaultKind.NO_FIELD, f"no field {field!r}; the object has {_some(list(value))}")
    text = value[field]
    if not isinstance(text, str):
        return line.fault(FaultKind.NOT_A_STRING, f"field {field!r} is {_name(text)}, not a string")
    if not text:
        return line.fault(FaultKind.EMPTY, f"field {field!r} is empty")
    try:
        return Document(line.file, line.number, text.encode())
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        reason = f"not UTF-8: half of a surrogate pair, \\u{code:04x}, is character {error.start} of field {field!r}"
        return Fault(FaultKind.NOT_UTF8, line.file, line.number, line.offset, reason)


def _not_utf8(path: str, line: int, error: UnicodeDecodeError, offset: int) -> Fault:
    byte = error.object[error.start]
    return Fault(FaultKind.NOT_UTF8, path, line, offset, f"not UTF-8: byte 0x{byte:02x} at offset {offset}")


def _name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _some(keys: list[str], most: int = 8) -> str:
    shown = ", ".join(repr(key) for key in keys[:most]) or "none"
    return shown if len(keys) <= most else f"{shown} and {len(keys) - most} more"
