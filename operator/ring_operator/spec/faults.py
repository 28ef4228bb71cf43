"""pydantic's errors in the house's words: the field's path as it is written, the value, the bound, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from ring_operator.errors import Fault
from ring_operator.spec.schema import Field, field_at, paths_named

Loc = tuple[str | int, ...]


_KEY = "[key]"  # pydantic's mark behind the place of a key that is wrong itself


def place_of(error: ErrorDetails) -> Loc:
    """The error's place in the document, without the mark of a key."""
    *around, last = error["loc"]
    unknown_field = error["type"] == "extra_forbidden"  # whatever it is called, it is a name in the document
    return (*(p for p in around if p != _KEY), *([last] if unknown_field or last != _KEY else []))


def path_of(place: Loc) -> str:
    """`spec.workers.volumes[0].name`; keys that are not plain words stand in brackets."""
    path = ""
    for part in place:
        if isinstance(part, int) or not part.replace("_", "").isalnum():
            path += f"[{_short(part)}]"
        else:
            path += f".{part}" if path else _short(part)
    return path


def fault_of(error: ErrorDetails, where: str) -> Fault:
    place = place_of(error)
    message, remedy = _said(error, place)
    return Fault(path_of(place), message, remedy, where)


def _said(error: ErrorDetails, place: Loc) -> tuple[str, str]:
    """Message and remedy."""
    kind, value, ctx = error["type"], error["input"], error.get("ctx", {})
    field = field_at(place)
    hint = _hint(field)
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "missing":
        return "is missing", hint
    if kind == "literal_error":
        return _not_among(
            value, [str(v) for v in field.values] if field and field.values else [ctx["expected"].strip("'")]
        )
    if _KEY in error["loc"]:
        return f"{shown(value)} is not a name that can stand here", "Use letters, digits, - _ . and one / at most."
    if message := _WORDS.get(kind):
        return message(shown(value), ctx), hint
    return f"{shown(value)}: {error['msg']}", hint


_Words = Callable[[str, dict[str, Any]], str]
_WORDS: dict[str, _Words] = {
    "int_type": lambda v, c: f"{v} is not a whole number",
    "int_from_float": lambda v, c: f"{v} is not a whole number",
    "float_type": lambda v, c: f"{v} is not a number",
    "finite_number": lambda v, c: f"{v} is not a finite number",
    "bool_type": lambda v, c: f"{v} is neither true nor false",
    "string_type": lambda v, c: f"{v} is not a string; put it in quotes if it is meant as one",
    "tuple_type": lambda v, c: f"{v} is not a list",
    "dict_type": lambda v, c: f"{v} is not a mapping",
    "model_type": lambda v, c: f"{v} is not a mapping of fields",
    "model_attributes_type": lambda v, c: f"{v} is not a mapping of fields",
    "number_or_auto": lambda v, c: f"{v} is neither a whole number from {c['least']:,} to {c['most']:,} nor auto",
    "greater_than_equal": lambda v, c: f"{v} is less than the least allowed, {_number(c['ge'])}",
    "greater_than": lambda v, c: f"{v} is not more than {_number(c['gt'])}",
    "less_than_equal": lambda v, c: f"{v} is more than the most allowed, {_number(c['le'])}",
    "less_than": lambda v, c: f"{v} is not less than {_number(c['lt'])}",
    "string_too_short": lambda v, c: (
        "is empty" if c["min_length"] == 1 else f"{v} has under {c['min_length']} characters"
    ),
    "string_too_long": lambda v, c: f"{v} has more than the {c['max_length']:,} characters allowed",
    "string_pattern_mismatch": lambda v, c: f"{v} does not have the form {c['pattern']}",
    "too_short": lambda v, c: f"has {c['actual_length']} entries, but needs at least {c['min_length']}",
    "too_long": lambda v, c: f"has {c['actual_length'] or 'more'} entries, but at most {c['max_length']} are allowed",
}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or abs(value) >= 1e4 else f"{value:g}"


def shown(value: Any) -> str:
    """A value, short enough for one line."""
    if isinstance(value, dict):
        return f"a mapping ({', '.join(_short(k) for k in list(value)[:3])}{', ...' if len(value) > 3 else ''})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _short({True: "true", False: "false"}[value] if isinstance(value, bool) else value)


def _short(value: object) -> str:
    text = str(value) if not isinstance(value, float) else f"{value:g}"
    text = "".join(c if c.isprintable() else "?" for c in text[:64])
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hint(field: Field | None) -> str:
    return f"It is: {field.description}" if field and field.description else ""


def _not_among(value: Any, allowed: list[str]) -> tuple[str, str]:
    near = nearest(str(value), allowed)
    said = (
        f"{shown(value)} is not {allowed[0]}"
        if len(allowed) == 1
        else f"{shown(value)} is none of {', '.join(allowed)}"
    )
    return said, f"Did you mean {near}?" if near and len(allowed) > 1 else f"Take {allowed[0]}." if len(
        allowed
    ) == 1 else ""


def _unknown(place: Loc) -> tuple[str, str]:
    """Name the nearest field beside it, or where a field of just that name is."""
    name = str(place[-1])
    parent = field_at(place[:-1])
    known = [child.name for child in parent.children] if parent else []
    if near := nearest(name, known):
        return "is not a field", f"Did you mean {near}?"
    if elsewhere := paths_named(name):
        return "is not a field here", f"Did you mean {elsewhere[0]}?"
    return "is not a field", f"The fields here are {', '.join(known)}." if known else ""


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like this one, or None where nothing is like it. Case does not count."""
    folded = {k.lower(): k for k in reversed(known)}
    close = difflib.get_close_matches(word.lower()[:80], list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None
