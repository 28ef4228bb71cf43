"""Text of `kubectl get nodes,pods -A -o json` (or yaml) -> raw nodes and pods.

Lists of any kind, single objects, and several YAML documents are all taken; objects of other kinds are left out.
Whatever else the text is, the error names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ring_operator.errors import Fault, UserError
from ring_operator.raw import Raw, mapping, text

COMMAND = "kubectl get nodes,pods -A -o json"
_MAX_DEPTH = 64
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast, where it was built


@dataclass(frozen=True, slots=True)
class Dump:
    """`has_pods`: whether pods were asked for at all; an empty list of pods says that there are none."""

    nodes: tuple[Raw, ...]
    pods: tuple[Raw, ...]

    @property
    def has_pods(self) -> bool:
        return bool(self.pods)


def read_dump(content: str, source: str) -> Dump:
    """Raises UserError. `source`: the file's name. Of two objects with one name the later one counts."""
    objects = [found for document in _documents(content, source) for found in _objects(document, source)]
    nodes = {_name(raw): raw for raw in objects if raw.get("kind") == "Node"}
    pods = {_name(raw): raw for raw in objects if raw.get("kind") == "Pod"}
    if not nodes:
        kinds = sorted({text(raw, "kind") or "no kind" for raw in objects})
        held = f"only objects of {', '.join(kinds[:5])}" if kinds else "an empty list"
        raise _refuse(source, f"no Node in it, but {held}")
    return Dump(tuple(nodes.values()), tuple(pods.values()))


def _documents(content: str, source: str) -> list[Any]:
    if not content.strip():
        raise _refuse(source, "is empty")
    if content.lstrip()[0] in "{[":
        return [_json(content, source)]
    try:
        _limit(content, source)
        return [document for document in yaml.load_all(content, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{min(mark.line, content.rstrip().count(chr(10))) + 1}" if mark else source
        raise _refuse(where, f"neither JSON nor YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _refuse(source, f"neither JSON nor YAML: {str(error).splitlines()[0]}") from None


def _limit(content: str, source: str) -> None:
    """The loader in C recurses without a limit of its own, so depth is looked at first."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _refuse(source, f"nested more than {_MAX_DEPTH} deep")


def _json(content: str, source: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg}"
        if error.pos >= len(content.rstrip()):
            message = "not JSON: it ends in the middle; was it cut off?"
        raise _refuse(f"{source}:{error.lineno}", message) from None
    except (RecursionError, ValueError):
        raise _refuse(source, "not JSON: nested too deep, or a number too long") from None


def _objects(document: Any, source: str) -> Iterator[Raw]:
    """Those of a list; what a typed list (NodeList) holds has its kind from the list."""
    if type(document) is not dict or not text(document, "kind"):
        raise _refuse(source, f"not what kubectl writes, but {_what(document)}")
    kind = text(document, "kind")
    if kind != "List" and not (kind.endswith("List") and "items" in document):
        yield document
        return
    members = document.get("items")
    for item in members if type(members) is list else []:
        if type(item) is dict:
            yield item if "kind" in item else {**item, "kind": kind.removesuffix("List")}


def _what(document: Any) -> str:
    if type(document) is dict:
        return "a mapping without a kind"
    return "a list" if type(document) is list else "plain text"


def _name(raw: Raw) -> tuple[str, str]:
    metadata = mapping(raw, "metadata")
    return text(metadata, "namespace"), text(metadata, "name")


def _refuse(where: str, message: str) -> UserError:
    return UserError([Fault("", message, f"Write it with: {COMMAND} > nodes.json", where)])
