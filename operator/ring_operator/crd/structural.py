"""pydantic's JSON schema -> what Kubernetes calls a structural schema: one type for each value, nothing by reference.

Unions are gone (`null` is a field left out; a number or a word is the API server's own int-or-string), references are
written out, and what a structural schema has no word for becomes a CEL rule: the bounds of a number that may be a word,
and the form of a map's keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ring_operator.crd.cel import Rule, quoted
from ring_operator.spec.base import INT_OR_STRING

Schema = dict[str, Any]
VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"

_WORD_MAX = 64  # of the word in "a number or auto": long enough for any mistake to be answered by the rule
_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties", "format")


def structural(model: type[BaseModel], defaults: bool) -> Schema:
    """The schema of a model. `defaults`: whether the API server fills them in."""
    schema = model.model_json_schema(by_alias=True)
    return _Converter(schema.get("$defs", {}), defaults).node(schema)


@dataclass(frozen=True, slots=True)
class _Converter:
    definitions: dict[str, Schema]
    defaults: bool

    def node(self, raw: Schema) -> Schema:
        node = self._resolved(raw)
        description = " ".join(str(node.get("description", "")).split())
        made = {**({"description": description} if description else {}), **self._body(node)}
        default = self._default(node, made)
        return made if default is None else {**made, "default": default}

    def _resolved(self, node: Schema) -> Schema:
        """What the node says behind a reference, or beside `null`."""
        own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            return {**self._resolved(self.definitions[node["$ref"].rpartition("/")[2]]), **own}
        branches = [branch for branch in node.get("anyOf", ()) if branch.get("type") != "null"]
        if len(branches) == 1:
            return {**self._resolved(branches[0]), **own}
        assert not branches or node.get(INT_OR_STRING), f"a union that no structural schema can say: {node}"
        return node

    def _body(self, node: Schema) -> Schema:
        if node.get(INT_OR_STRING):
            return _number_or_word(node) if "anyOf" in node else _amount(node)
        if node["type"] == "array":
            return self._list(node)
        if node["type"] == "object":
            return self._mapping(node) if "properties" in node else self._map(node)
        return _scalar(node)

    def _list(self, node: Schema) -> Schema:
        items = node["prefixItems"][0] if "prefixItems" in node else node["items"]
        return {"type": "array", LIST_TYPE: "atomic", **_bounds(node), "items": self.node(items)}

    def _mapping(self, node: Schema) -> Schema:
        required = {"required": node["required"]} if node.get("required") else {}
        fields = {name: self.node(field) for name, field in node["properties"].items()}
        return {"type": "object", **required, "properties": fields}

    def _map(self, node: Schema) -> Schema:
        """Keys of any name, all values alike."""
        ((pattern, value),) = node["patternProperties"].items()
        longest = node["propertyNames"]["maxLength"]
        rule = Rule(
            holds=f"self.all(key, key.size() <= {longest} && key.matches({quoted(pattern)}))",
            message="a key is not a name that can stand here. Use letters, digits, - _ . and one / at most.",
        )
        body = {"type": "object", **_bounds(node), "additionalProperties": self.node(value)}
        return {**body, VALIDATIONS: [rule.as_validation()]}

    def _default(self, node: Schema, made: Schema) -> Any:
        """What is written in for a field left out; None: nothing, and nothing either where it would say nothing.

        A mapping's is written out, since the API server checks it by the rules of that mapping before it fills it.
        """
        default = node.get("default")
        if not self.defaults or default in (None, "", [], {}):
            return None
        fields = made.get("properties")
        return default if fields is None else {n: f["default"] for n, f in fields.items() if "default" in f}


def _number_or_word(node: Schema) -> Schema:
    (word,) = [branch["const"] for branch in node["anyOf"] if "const" in branch]
    least, most = node["minimum"], node["maximum"]
    rule = Rule(
        holds=f"type(self) == int ? self >= {least} && self <= {most} : self == {quoted(word)}",
        message=f"neither a whole number from {least:,} to {most:,} nor {word}",
    )
    return {INT_OR_STRING: True, "maxLength": _WORD_MAX, VALIDATIONS: [rule.as_validation()]}


def _amount(node: Schema) -> Schema:
    return {INT_OR_STRING: True, "minimum": 0, **_bounds(node)}


def _scalar(node: Schema) -> Schema:
    values = [node["const"]] if "const" in node else node.get("enum")
    return {"type": node["type"], **({"enum": values} if values else {}), **_bounds(node)}


def _bounds(node: Schema) -> Schema:
    """OpenAPI 3.0 says of a bound that it is exclusive, where JSON schema has another bound for it."""
    bounds = {key: node[key] for key in _BOUNDS if key in node}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if exclusive in node:
            bounds |= {bound: node[exclusive], exclusive: True}
    return bounds
