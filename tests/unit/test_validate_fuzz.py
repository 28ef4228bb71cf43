"""Whatever is in a file, `ringctl validate` exits 0 or 1 with words, and never with a traceback."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from job_manifests import SHORTEST
from ring_operator.cli.main import app
from ring_operator.spec import check_manifest, every_field

SAMPLES = [p.read_text() for p in sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))]
GOOD = [*map(yaml.safe_load, SAMPLES), yaml.safe_load(SHORTEST)]
_NAMES = sorted({field.name for field in every_field()})


def validates(text: str | bytes) -> bool:
    result = CliRunner().invoke(app, ["validate", "-"], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (0, 1)
    assert (result.exit_code == 1) == bool(result.stderr)
    return result.exit_code == 0


_MARKS = ["a:", "-", "[", "]", "{", "}", "'", '"', "#", "%", "@", "?", ",", "~", ">", "*a", "<<", "spec", "---", "..."]
_SNIPPETS = [
    *_MARKS,
    ": ",
    "- ",
    "\n",
    "  ",
    "&a ",
    "!!x ",
    "|\n",
    "\t",
    "\\ud800",
    "\x00",
    "\ufeff",
    "9" * 99,
    "²",
    "[٣]",
    "1e999",
]


@given(st.lists(st.sampled_from(_SNIPPETS) | st.text(max_size=4), max_size=30).map("".join))
@settings(max_examples=100)
def test_any_text(text):
    assert not validates(text)


@given(st.binary(max_size=60))
@settings(max_examples=40)
def test_any_bytes(raw):
    assert not validates(raw)


@given(st.sampled_from(SAMPLES), st.integers(0, 10_000), st.integers(0, 6), st.sampled_from(_SNIPPETS))
@settings(max_examples=60)
def test_a_good_manifest_with_a_piece_cut_out_and_another_put_in(text, at, length, piece):
    at %= len(text)
    validates(text[:at] + piece + text[at + length :])


_words = st.text(max_size=6) | st.sampled_from(["auto", "/x", "latest"])
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | _words
_DIGITS = ["[²]", "².a", "[٣]", "[" + "9" * 5000 + "]"]  # digits to Python, and numbers to nobody
_keys = st.sampled_from([*_NAMES, *_DIGITS]) | st.text(max_size=4)
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=6
)
_values = st.lists(_anything, min_size=1, max_size=3)


@given(st.sampled_from(GOOD), st.integers(0, 2**30), _values, st.sampled_from(_NAMES))
@settings(max_examples=80)
def test_a_good_manifest_with_values_replaced_and_fields_renamed(good, seed, values, name):
    raw = copy.deepcopy(good)
    chance = random.Random(seed)
    for value in values:
        holder, key = chance.choice(list(_slots(raw)))
        if chance.random() < 0.2 and isinstance(holder, dict):
            holder[name] = holder.pop(key)
        else:
            holder[key] = value
    validates(yaml.safe_dump(raw, allow_unicode=True))


def _slots(value):
    """Every place in a document where a value could be another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _slots(inner)


def test_the_good_ones_are_good():
    assert all(validates(text) for text in SAMPLES)


_SIGNS = [".", "[", "]", "[0]", "[9]", "[-1]", "=", "", "spec", "metadata", "é"]
_PIECES = st.sampled_from([*_NAMES, *_SIGNS, *_DIGITS]) | st.text(max_size=3)


@pytest.mark.parametrize("key", _DIGITS)
def test_a_key_of_strange_digits_is_only_an_unknown_field(key):
    for section in ({}, {"spec": {key: 1}}):
        assert not validates(yaml.safe_dump({**yaml.safe_load(SHORTEST), key: 1, **section}, allow_unicode=True))
    assert check_manifest(SHORTEST, "f", [f"data.source.include{key}=x", f"data{key}=x"]).faults


@given(st.lists(_PIECES, max_size=6).map("".join), st.sampled_from(["1", "[", "{a: 1}", "", "auto"]))
@settings(max_examples=100)
def test_any_set(path, value):
    checked = check_manifest(SHORTEST, "f", [f"{path}={value}"])
    assert checked.jobs or checked.faults
    assert all(str(fault) for fault in checked.faults)
