"""YAML and JSON to values: what is read, what is refused, and on which line."""

from __future__ import annotations

import itertools
import json
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ring_operator.errors import UserError
from ring_operator.spec.documents import MAX_CHARACTERS, parse_value, plain_scalar, read_documents


@pytest.mark.parametrize(
    "text, value",
    [
        ("3e-4", 3e-4),
        ("1_048_576", 1048576),
        ("-7", -7),
        (".5", 0.5),
        ("1e400", float("inf")),
        ("2026-01-01", "2026-01-01"),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("0x10", "0x10"),
        ("1__0", "1__0"),
        ("9" * 200, "9" * 200),
        ("e5", "e5"),
        ("=", "="),
    ],
)
def test_words_are_read_by_the_core_of_yaml_1_2(text, value):
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


def test_json_may_be_indented_with_tabs():
    document = read_documents('{\n\t"a": [\n\t\t1,\n\t\t"x\\ty"\n\t]\n}\n', "f")[0]
    assert document.value == {"a": [1, "x\ty"]}
    assert document.where(("a", 1)) == "f:4"


def test_quotes_and_blocks_are_strings_whatever_is_in_them():
    assert read_documents("a: '5'\nb: \"true\"\nc: |\n  7\n", "f")[0].value == {"a": "5", "b": "true", "c": "7\n"}


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: [", "f:1: not YAML: expected the node content"),
        ("a:\n\t- b", "f:2: a tab where YAML wants spaces"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "f:4: 'c' stands twice in the same mapping"),
        ("a: &x [*x]", "f:1: aliases make more than 20,000 values or 32 levels"),
        ("[" * 40, "f:1: nested 33 deep, but at most 32 levels are read"),
        ("? [a]\n: b", "f:1: a mapping or list as a key"),
        ("x: !!python/object:os.system ls", "f:1: the tag !!python/object:os.system is not read"),
        ("x: !secret y", "f:1: the tag !secret is not read"),
        ("x: !!binary aGk=", "f:1: the tag !!binary is not read"),
        ('{"a": "\\ud800"}', "f:1: half of a surrogate pair"),
        ("a: \x07", "f:1: the character 0x0007 does not belong in YAML"),
        ("a: *b", "f:1: not YAML: found undefined alias 'b'"),
        ("base: &b {a: 1}\nx:\n  <<: *b", "f:3: merge keys (<<) are not read"),
        ("a: b: c", "f:1: not YAML: mapping values are not allowed here"),
        ("%YAML 9.9\n---\na: 1", "f:1: not YAML: found incompatible YAML document"),
        ("a: " + "x" * MAX_CHARACTERS, "characters, but at most 262,144 are read"),
        ("\n".join("- a" for _ in range(40_001)), "more than 20,000 values"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text, said):
    with pytest.raises(UserError) as caught:
        read_documents(text, "f")
    assert len(caught.value.faults) == 1
    assert said in caught.value.faults[0].line


def test_aliases_that_multiply_are_stopped_at_once():
    letters = "abcdefghi"
    text = "a: &a [" + ",".join("x" * 9) + "]\n"
    for before, letter in itertools.pairwise(letters):
        text += f"{letter}: &{letter} [{','.join([f'*{before}'] * 9)}]\n"
    began = time.monotonic()
    with pytest.raises(UserError, match="aliases make more than 20,000 values"):
        read_documents(text, "bomb")
    assert time.monotonic() - began < 2


def test_every_value_knows_its_line():
    document = read_documents("a:\n  - b: 1\n\n  - b: 2\n", "f")[0]
    assert document.where(("a", 1, "b")) == "f:4"
    assert document.where(("a", 1, "b", "missing")) == "f:4"
    assert document.where(()) == "f:1"


def test_empty_documents_are_passed_over():
    assert [d.value for d in read_documents("---\n---\na: 1\n---\n# nothing\n", "f")] == [{"a": 1}]


@pytest.mark.parametrize("text, value", [("", None), ("''", ""), ("5", 5), ("[a, 1]", ["a", 1])])
def test_the_value_of_a_set(text, value):
    assert parse_value(text, "--set") == value


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)


def _values(words):
    scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | _floats | words
    inner = st.recursive(
        scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(words, v, max_size=4), max_leaves=8
    )
    return st.dictionaries(words, inner, max_size=3)


_floats = st.floats(allow_nan=False, allow_infinity=False)


@given(_values(_words))
@settings(max_examples=50)
def test_json_is_read_as_json(value):
    assert read_documents(json.dumps(value), "f")[0].value == value


@given(_values(_words.filter(lambda word: not any(c.isdigit() for c in word))))
@settings(max_examples=50)
def test_what_yaml_writes_is_read_back(value):
    """Words without digits: PyYAML writes `1e5` without quotes, being sure that it is no number."""
    text = yaml.safe_dump(value, allow_unicode=True)
    assert read_documents(text, "f")[0].value == value
