"""Manifest to jobs: text -> documents -> checked models, with every fault of every document at once.

`--set path=value` is written into the documents before they are checked, so that it is checked like the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ring_operator.errors import Fault, UserError
from ring_operator.spec import rules
from ring_operator.spec.documents import Document, Place, parse_value, read_documents
from ring_operator.spec.faults import fault_of, place_of
from ring_operator.spec.job import JobSpec, TrainingJob


@dataclass(frozen=True, slots=True)
class Checked:
    """What a text holds: the jobs that are sound, each with its document, and the faults of the others."""

    jobs: tuple[TrainingJob, ...]
    faults: tuple[Fault, ...]
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A `--set`. `where`: the option as it was given, for messages."""

    place: Place
    value: Any
    where: str


def check_manifest(text: str, source: str = "manifest", overrides: Sequence[str] = ()) -> Checked:
    """Jobs and faults of all documents of a text. `source` names it in faults. `overrides`: `path=value` each.

    Never raises for what a text holds.
    """
    try:
        documents = read_documents(text, source)
        changes = [_parse_override(override) for override in overrides]
    except UserError as error:
        return Checked((), error.faults)
    if not documents:
        return Checked((), (Fault("", "no document in it", "Write a RingTrainingJob.", source),))
    results = [_check_document(document, changes) for document in documents]
    sound = [(job, document) for (job, _), document in zip(results, documents, strict=True) if job is not None]
    faults = (*(f for _, faults in results for f in faults), *_same_names(sound))
    return Checked(tuple(job for job, _ in sound), faults, tuple(document for _, document in sound))


def load_manifest(text: str, source: str = "manifest", overrides: Sequence[str] = ()) -> list[TrainingJob]:
    """The jobs of a text. Raises UserError with every fault of every document."""
    checked = check_manifest(text, source, overrides)
    if checked.faults:
        raise UserError(checked.faults)
    return list(checked.jobs)


def read_manifest(path: str | Path, overrides: Sequence[str] = ()) -> list[TrainingJob]:
    """The jobs of a file. Raises UserError also where the file cannot be read."""
    return load_manifest(read_text(path), str(path), overrides)


def read_text(path: str | Path) -> str:
    """A manifest file's text. Raises UserError where it cannot be read or is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError([Fault("", f"not UTF-8 at byte {error.start}", where=str(path))]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError([Fault("", f"cannot be read: {reason}", where=str(path))]) from None


def job_of(value: Any) -> TrainingJob:
    """The job of an object as the API server gives it. Raises UserError with every fault."""
    job, faults = _check_document(Document(value, "object"), [])
    if job is None:
        raise UserError(Fault(f.path, f.message, f.remedy) for f in faults)
    return job


def _check_document(document: Document, changes: Sequence[Change]) -> tuple[TrainingJob | None, list[Fault]]:
    if not isinstance(document.value, dict):
        message = f"a {_kind(document.value)} where a RingTrainingJob is expected"
        return None, [Fault("", message, "Begin with apiVersion and kind.", document.where(()))]
    try:
        for change in changes:
            _write(document.value, change.place, change.value)
            document.overwritten[change.place] = change.where
    except UserError as error:
        return None, list(error.faults)
    raw = _without_nulls(document.value)
    errors, job = _validate(raw)
    if strange := [error for error in errors if error["loc"] in _IDENTITY and error["type"] == "literal_error"]:
        return None, [fault_of(error, document.where(place_of(error))) for error in strange]
    faults = [fault_of(error, document.where(place_of(error))) for error in errors]
    faults += [placed(fault, document) for fault in rules.check(_sound_sections(raw))]
    faults.sort(key=lambda fault: document.line(_split(fault.path)))
    return (job if not faults else None), faults


_IDENTITY = (("apiVersion",), ("kind",))  # where these are another's, the rest is no affair of ours


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"


def _validate(raw: dict[str, Any]) -> tuple[list[Any], TrainingJob | None]:
    try:
        return [], TrainingJob.model_validate(raw)
    except ValidationError as error:
        return error.errors(include_url=False), None


def _sound_sections(raw: dict[str, Any]) -> dict[str, Any]:
    """The sections of the spec that are well formed, each on its own; absent ones by their defaults."""
    spec = raw.get("spec")
    if not isinstance(spec, dict):
        return {}
    sections = {}
    for name, info in JobSpec.model_fields.items():
        try:
            sections[name] = _section(name).validate_python(spec.get(info.alias, info.default))
        except ValidationError:
            continue
    return sections


@cache
def _section(name: str) -> TypeAdapter[Any]:
    """What checks a section on its own; making it costs much more than using it."""
    return TypeAdapter(JobSpec.model_fields[name].annotation)  # type: ignore[arg-type]


def _without_nulls(value: Any) -> Any:
    """A field without a value is a field that is not there, as for the API server."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def placed(fault: Fault, document: Document) -> Fault:
    """The fault with the file and line of its field."""
    return Fault(fault.path, fault.message, fault.remedy, document.where(_split(fault.path)))


_PART = re.compile(r"\[(?P<index>[0-9]{1,9})\]|\[(?P<key>[^\]]*)\]|(?P<name>[^.\[\]]+)")


def _split(path: str) -> Place:
    """`a.b[0].c[d.e]` to its parts. Only plain digits are an index: `²` is a digit to Python, and no number."""
    found = _PART.finditer(path)
    return tuple(int(part["index"]) if part["index"] else part[part.lastgroup or 0] for part in found)


def _same_names(sound: Sequence[tuple[TrainingJob, Document]]) -> Iterator[Fault]:
    seen: dict[tuple[str | None, str], str] = {}
    for job, document in sound:
        where = document.where(("metadata", "name"))
        first = seen.setdefault((job.metadata.namespace, job.name), where)
        if first != where:
            yield Fault("metadata.name", f"{job.name} is the name of the job at {first} too", "Take another.", where)


_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[[^\[\]]+\])*")
_YAML_SIGNS = tuple("*&!%@`|>[{")


def _parse_override(text: str) -> Change:
    """`training.steps=5` or `spec.training.steps=5`; the value is read as YAML."""
    where = f"--set {text[:80]}"
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError([Fault("", "is not path=value", "Write, for example, training.steps=5.", where)])
    if not _PATH.fullmatch(path.strip()):
        remedy = "Put one dot between names and whole numbers in brackets, as in data.source.include[0]."
        raise UserError([Fault("", f"{path.strip()[:80]} is not a path of a field", remedy, where)])
    place = _split(path.strip())
    if place[0] not in ("spec", "metadata", "apiVersion", "kind"):
        place = ("spec", *place)
    return Change(place, _value_of(value, where), where)


def _value_of(text: str, where: str) -> Any:
    """Raises UserError; a word that begins like YAML's own signs is most likely meant as a word."""
    try:
        return parse_value(text, where)
    except UserError as error:
        if not text.strip().startswith(_YAML_SIGNS):
            raise
        word = text.strip()[:60]
        remedy = f"If {word[0]} begins a word, put the word in quotes that YAML sees: '\"{word}\"'."
        raise UserError(Fault(f.path, f.message, remedy, f.where) for f in error.faults) from None


def _write(raw: dict[str, Any], place: Place, value: Any) -> None:
    """Set the value at a place, making the mappings on the way."""
    target: Any = raw
    for part, following in zip(place, [*place[1:], None], strict=True):
        last = following is None
        if isinstance(target, dict) and isinstance(part, str):
            if last or not isinstance(target.get(part), dict | list):
                target[part] = value if last else {}
        elif not (isinstance(target, list) and isinstance(part, int) and part < len(target)):
            raise UserError(
                [Fault(_dotted(place), "--set finds no such entry", "Give an entry that the manifest has.")]
            )
        elif last:
            target[part] = value
        target = target[part]


def _dotted(place: Place) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
