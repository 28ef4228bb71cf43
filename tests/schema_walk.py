"""The CRD's schema, walked; and defaults filled in as the API server fills them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from ring_operator.crd import definition

Schema = dict[str, Any]


def version() -> dict[str, Any]:
    (only,) = definition()["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def schema() -> Schema:
    return dict(version()["schema"]["openAPIV3Schema"])


def nodes(node: Schema | None = None, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every value that the schema knows, with its path; [] behind a list's entries, {} behind a map's values."""
    node = schema() if node is None else node
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def with_defaults(value: Any, node: Schema | None = None) -> Any:
    """A copy of the value with the schema's defaults in it."""
    node = schema() if node is None else node
    if isinstance(value, list):
        return [with_defaults(entry, node["items"]) for entry in value]
    if not isinstance(value, dict) or "properties" not in node:
        return copy.deepcopy(value)
    missing = {n: c["default"] for n, c in node["properties"].items() if "default" in c and n not in value}
    filled = {**value, **copy.deepcopy(missing)}
    known = node["properties"]
    return {name: with_defaults(entry, known[name]) if name in known else entry for name, entry in filled.items()}
