"""The fields of the manifest as data: for `ringctl explain`, for nearest names, later for the CRD.

Made from pydantic's JSON schema, so that what is explained is what is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ring_operator.spec.job import TrainingJob


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its path as written, without list indices, and what may stand there.

    `type`: in words, `[]` behind it for lists. `default` None: there is none. `bounds`: in words.
    `values`: the words that are allowed, where only some are.
    """

    path: str
    name: str
    type: str
    description: str
    required: bool
    default: Any
    bounds: tuple[str, ...]
    values: tuple[Any, ...]
    children: tuple[Field, ...]


@cache
def root() -> Field:
    """The RingTrainingJob itself, with everything below it."""
    schema = TrainingJob.model_json_schema(by_alias=True)
    return _Reader(schema.get("$defs", {})).field(schema, "", True)


def field_at(place: tuple[str | int, ...]) -> Field | None:
    """The field at a place in a document; list indices are passed over. None: there is no such field."""
    field: Field | None = root()
    for name in place:
        if isinstance(name, str) and field is not None:
            field = next((child for child in field.children if child.name == name), None)
    return field


def every_field(field: Field | None = None) -> Iterator[Field]:
    """All fields, depth first, in the order of the manifest."""
    field = field or root()
    for child in field.children:
        yield child
        yield from every_field(child)


def paths_named(name: str) -> list[str]:
    """Paths of the fields of this name, the shortest first."""
    found = [field.path for field in every_field() if field.name.lower() == name.lower()]
    return sorted(found, key=lambda path: path.count("."))


@dataclass(frozen=True, slots=True)
class _Reader:
    definitions: dict[str, Any]

    def field(self, node: dict[str, Any], path: str, required: bool) -> Field:
        core = self._core(node)
        description = " ".join(str(core.get("description", "")).split())
        item = self._item(core)
        return Field(
            path=path,
            name=path.rpartition(".")[2],
            type=_type(core, item),
            description=description,
            required=required,
            default=node.get("default"),
            bounds=_bounds(core, item),
            values=_values(item),
            children=self._children(item, path),
        )

    def _item(self, core: dict[str, Any]) -> dict[str, Any]:
        """What a list holds; the node itself where it is no list."""
        return self._core(core["items"]) if core.get("type") == "array" and "items" in core else core

    def _children(self, node: dict[str, Any], path: str) -> tuple[Field, ...]:
        required = node.get("required", [])
        return tuple(
            self.field(child, f"{path}.{name}" if path else name, name in required)
            for name, child in node.get("properties", {}).items()
        )

    def _core(self, node: dict[str, Any]) -> dict[str, Any]:
        """What the node says behind references and `or null`; the branches of other unions are merged into one."""
        if "$ref" in node:
            return {**self._core(self.definitions[node["$ref"].rpartition("/")[2]]), **_own(node)}
        branches = [self._core(b) for b in node.get("anyOf", node.get("oneOf", ())) if b.get("type") != "null"]
        merged: dict[str, Any] = {}
        for branch in reversed(branches):
            merged.update(branch)
        if len(branches) > 1:
            merged = {**merged, "type": " or ".join(_type(b, self._item(b)) for b in branches)}
            merged.pop("const", None)
        return {**merged, **_own(node)}


def _own(node: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k not in ("$ref", "anyOf", "oneOf", "title", "discriminator")}


_TYPES = {"object": "mapping", "array": "list", "integer": "whole number", "boolean": "true or false"}


def _type(core: dict[str, Any], item: dict[str, Any]) -> str:
    if "const" in core:
        return str(core["const"])
    if "prefixItems" in core:
        return f"list of {len(core['prefixItems'])} {_type(core['prefixItems'][0], {})}s"
    if core.get("type") == "array":
        return f"list of {_type(item, item)}s" if item is not core else "list"
    if core.get("type") == "object" and not core.get("properties"):
        return "mapping of strings"
    name = str(core.get("type", "value"))
    return _TYPES.get(name, name)


def _values(node: dict[str, Any]) -> tuple[Any, ...]:
    return (node["const"],) if "const" in node else tuple(node.get("enum", ()))


_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "maxProperties": "at most {} entries",
    "pattern": "of the form {}",
}


def _bounds(core: dict[str, Any], item: dict[str, Any]) -> tuple[str, ...]:
    own = [words.format(_plain(core[key])) for key, words in _BOUNDS.items() if key in core]
    each = [words.format(_plain(item[key])) for key, words in _BOUNDS.items() if item is not core and key in item]
    return (*own, *(f"each {bound}" for bound in each))


def _plain(value: Any) -> str:
    return (
        str(value) if not isinstance(value, int | float) else f"{value:,}" if isinstance(value, int) else f"{value:g}"
    )
