"""Reading what an object holds without ever raising for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Raw = Mapping[str, Any]
_EMPTY: dict[str, Any] = {}


def mapping(raw: Any, key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one where there is none."""
    value = raw.get(key) if type(raw) is dict else None
    return value if type(value) is dict else _EMPTY


def items(raw: Any, key: str) -> list[dict[str, Any]]:
    """The mappings of the list under a key."""
    value = raw.get(key) if type(raw) is dict else None
    return [item for item in value if type(item) is dict] if type(value) is list else []


def text(raw: Any, key: str) -> str:
    value = raw.get(key) if type(raw) is dict else None
    return value if type(value) is str else ""
