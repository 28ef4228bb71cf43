"""Reading what an object holds without ever raising for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ring_operator.topology.quantity import quantity

Raw = Mapping[str, Any]
Amounts = Mapping[str, int]  # resource -> billionths
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


def amounts(raw: Any, key: str) -> dict[str, int]:
    """The quantities under a key; what is none is left out."""
    found = mapping(raw, key)
    return {name: amount for name, value in found.items() if (amount := quantity(value)) is not None} if found else {}
