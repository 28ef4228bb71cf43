"""The seam: what one side writes the other reads, to the last value; and anything else is refused with its path."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring_worker.contract import (
    AgentStatus,
    ContractError,
    Degrees,
    Master,
    Member,
    MetricsLine,
    PreparationProgress,
    RankTable,
    RunConfig,
)

_FLAT = (AgentStatus, MetricsLine, PreparationProgress, RunConfig)
_numbers = st.floats(allow_nan=False, allow_infinity=False)


def _documents(cls):
    """Any document of a type, with the version of this program."""
    return st.builds(cls, version=st.just(1)) if cls is not RunConfig else _run_configs


st.register_type_strategy(float, _numbers)
_run_configs = st.builds(RunConfig, version=st.just(1))
_examples = {cls: _documents(cls) for cls in _FLAT}


@st.composite
def rank_tables(draw):
    """A table in which every rank has its place, some ranks to a pod."""
    degrees = Degrees(*(draw(st.integers(1, 3)) for _ in range(4)))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, degrees.world_size - 1)), max_size=4)) - {degrees.world_size})
    borders = [0, *cuts, degrees.world_size]
    members = tuple(
        Member(f"pod-{i}", f"node-{i}", f"10.0.0.{i}", first, last - first, ring=0, position=0)
        for i, (first, last) in enumerate(itertools.pairwise(borders))
    )
    return RankTable(draw(st.integers(1, 99)), draw(st.text()), degrees.world_size, degrees, Master("10.0.0.0", 29500),
                     draw(st.text()), members)  # fmt: skip


@pytest.mark.parametrize("cls", _FLAT)
@given(data=st.data())
@settings(max_examples=40)
def test_a_document_comes_back_as_it_went_out(cls, data):
    document = data.draw(_examples[cls])
    assert cls.from_json(document.to_json()) == document


@given(rank_tables())
def test_a_rank_table_comes_back_as_it_went_out(table):
    assert RankTable.from_json(table.to_json()) == table
    assert all(table.member(member.pod) == member for member in table.members)


_TABLE = RankTable(
    3, "uid", 2, Degrees(context=2), Master("a", 1), "t", (Member("p-0", "n", "a", 0, 2, ring=0, position=0),)
)


def _paths(value, path=()):
    """Paths of all objects in a document."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _at(value, path):
    for part in path:
        value = value[part]
    return value


def _written(path):
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)


_ALL_PATHS = list(_paths(json.loads(_TABLE.to_json())))


@pytest.mark.parametrize("path", _ALL_PATHS, ids=_written)
def test_a_key_too_many_or_too_few_is_refused_with_its_path(path):
    raw = json.loads(_TABLE.to_json())
    _at(raw, path)["surprise"] = 1
    with pytest.raises(ContractError) as caught:
        RankTable.from_json(json.dumps(raw))
    assert str(caught.value).startswith(f"RankTable{_written(path)}.surprise: ")
    for key in _at(json.loads(_TABLE.to_json()), path).keys() - {"version"}:
        raw = json.loads(_TABLE.to_json())
        del _at(raw, path)[key]
        with pytest.raises(ContractError) as caught:
            RankTable.from_json(json.dumps(raw))
        assert str(caught.value) == f"RankTable{_written(path)}.{key}: missing"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"epoch": "3"}, "RankTable.epoch: '3' is not of type int"),
        ({"epoch": True}, "RankTable.epoch: True is not of type int"),
        ({"members": {}}, "RankTable.members: {} is not a list"),
        ({"master": []}, "RankTable.master: [] is not an object"),
        ({"version": 2}, "RankTable.version: 2, but this program reads version 1"),
        ({"world_size": 3}, "RankTable.members: ranks [0, 1] are not 0..2, each once"),
        ({"degrees": dataclasses.asdict(Degrees(context=3))}, "RankTable.degrees: their product 3 is not world_size 2"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_path(change, said):
    raw = {**json.loads(_TABLE.to_json()), **change}
    with pytest.raises(ContractError) as caught:
        RankTable.from_json(json.dumps(raw))
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"'])
@pytest.mark.parametrize("cls", [*_FLAT, RankTable])
def test_what_is_no_document_is_refused(cls, text):
    with pytest.raises(ContractError, match=f"^{cls.__name__}"):
        cls.from_json(text)
