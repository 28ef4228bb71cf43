"""Strict, versioned JSON for frozen dataclasses.

A key too many or too few, or a value of another type, is an error with its path: a worker that ignores what
its operator meant trains something else in silence.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

VERSION = 1

_T = typing.TypeVar("_T")


class ContractError(ValueError):
    """A document of the seam is not what this version writes. The message starts with the path of the fault."""


def dump(value: Any, indent: int | None = 1) -> str:
    return json.dumps(dataclasses.asdict(value), indent=indent, sort_keys=True, allow_nan=False)


def load(cls: type[_T], text: str, name: str) -> _T:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{name}: not JSON: {error}") from None
    if isinstance(raw, dict) and raw.get("version") != VERSION:
        raise ContractError(f"{name}.version: {raw.get('version')!r}, but this program reads version {VERSION}")
    return typing.cast(_T, _read(cls, raw, name))


def _read(kind: Any, raw: Any, path: str) -> Any:
    """Build a value of type `kind` from plain JSON, refusing whatever does not fit."""
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), raw, path)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), raw, path)
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in typing.get_args(kind) if a is not types.NoneType)
        return None if raw is None else _read(inner, raw, path)
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if type(raw) is not kind:
        raise ContractError(f"{path}: {raw!r} is not of type {kind.__name__}")
    return raw


def _read_dataclass(cls: type, raw: Any, path: str) -> Any:
    if not isinstance(raw, dict):
        raise ContractError(f"{path}: {raw!r} is not an object")
    hints = typing.get_type_hints(cls)
    if unknown := sorted(raw.keys() - hints.keys()):
        raise ContractError(f"{path}.{unknown[0]}: not a field of version {VERSION}")
    if missing := sorted(hints.keys() - raw.keys()):
        raise ContractError(f"{path}.{missing[0]}: missing")
    return cls(**{name: _read(kind, raw[name], f"{path}.{name}") for name, kind in hints.items()})


def _read_tuple(kinds: tuple[Any, ...], raw: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise ContractError(f"{path}: {raw!r} is not a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(raw)
    if len(kinds) != len(raw):
        raise ContractError(f"{path}: {len(raw)} values, not {len(kinds)}")
    return tuple(_read(kind, value, f"{path}[{i}]") for i, (kind, value) in enumerate(zip(kinds, raw, strict=True)))
