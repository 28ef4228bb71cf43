"""Which documents there are: a `contract.Source` becomes a sorted listing of files, without reading any of them.

The order is that of the relative paths, so it is the same on every machine and at every start; a document's id is its
relative path, with `:line` behind it in JSONL. What cannot be read stays in the listing with the reason: it becomes a
fault later (`documents.py`), under the same rule as every other bad document. Symbolic links are followed, each folder
once, so that a loop ends.
"""

from __future__ import annotations

import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ring_worker.contract import Source
from ring_worker.data.errors import DataConfigError
from ring_worker.data.globs import Selection, has_wildcard

JSONL_PATTERN = "**/*.jsonl"

# Python's own library as text to train on: its modules without third-party packages and without its tests, some of
# which are broken on purpose. Files of no bytes (most __init__.py) are markers, not text: they are no part of it.
STDLIB = "python-stdlib"
STDLIB_INCLUDE = ("**/*.py",)
STDLIB_EXCLUDE = (
    "site-packages/**",
    "dist-packages/**",
    "**/__pycache__/**",
    "**/test/**",
    "**/tests/**",
    "**/idle_test/**",
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`path` relative to the listing's root, "/" between folders. `unreadable`: why it cannot be read, or "".

    A folder that cannot be read is here too, with "/" behind its path: what it holds is not known.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source, sorted by path. `field`: of the JSON object of each line, None for whole files."""

    root: str
    files: tuple[SourceFile, ...]
    field: str | None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def list_source(source: Source, leave_out: Path) -> Listing:
    """All files of a source. `leave_out`: a folder that is never part of it (that of the prepared data).

    Raises DataConfigError when there is nothing at the path or when the patterns leave nothing.
    """
    root, selection = _select(source)
    found = _walk(root, selection, _identity(leave_out)) if root.is_dir() else iter(())
    wanted = (f for f in found if f.path.endswith("/") or selection.wants(f.path))
    files = sorted(wanted, key=lambda f: f.path)
    if source.kind == "builtin":
        files = [f for f in files if f.size_bytes or f.unreadable]
    if not files:
        raise DataConfigError(_nothing(source, root))
    return Listing(str(root), tuple(files), source.field if source.kind == "jsonl" else None)


def _select(source: Source) -> tuple[Path, Selection]:
    """The folder to walk and what to take from it; a single file is its folder and a pattern that is its name."""
    if source.kind == "builtin":
        return _select_builtin(source)
    if source.kind not in ("path", "jsonl"):
        raise DataConfigError(f"spec.data.source: {source.kind!r} cannot be read; path, jsonl and builtin can.")
    if not source.path:
        raise DataConfigError(f"{_field(source)}: it is empty; name a file, a folder or a glob pattern.")
    path = Path(source.path).expanduser()
    if path.is_dir():
        whole = () if source.kind == "path" else (JSONL_PATTERN,)
        return path, Selection.of(source.include or whole, source.exclude)
    if path.exists():
        return path.parent, Selection.of(source.include, source.exclude, (_literal(path.name),))
    if has_wildcard(source.path):
        root, pattern = _split_glob(path)
        return root, Selection.of(source.include, source.exclude, (pattern,))
    raise DataConfigError(f"{_field(source)}: {source.path!r} does not exist{_how_far(path)}")


def _select_builtin(source: Source) -> tuple[Path, Selection]:
    if source.name != STDLIB:
        raise DataConfigError(f"spec.data.source.builtin: {source.name!r} does not exist; there is {STDLIB!r}.")
    root = Path(sysconfig.get_paths()["stdlib"])
    return root, Selection.of(source.include, (*source.exclude, *STDLIB_EXCLUDE), STDLIB_INCLUDE)


def _literal(name: str) -> str:
    """A pattern that matches only `name`."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _split_glob(path: Path) -> tuple[Path, str]:
    first = next(i for i, part in enumerate(path.parts) if has_wildcard(part))
    return Path(*path.parts[:first]), "/".join(path.parts[first:])


def _walk(root: Path, selection: Selection, leave_out: tuple[int, int] | None) -> Iterator[SourceFile]:
    seen = {identity for identity in (_identity(root), leave_out) if identity}
    folders = [""]
    while folders:
        folder = folders.pop()
        below = []
        try:
            names = sorted(os.listdir(root / folder))
        except OSError as error:
            yield SourceFile(folder or "./", 0, 0, unreadable=_why(error))
            continue
        for name in names:
            file, identity = _look(root / folder / name, folder + name)
            if identity is None:
                yield file
            elif identity not in seen and selection.enters(folder + name):
                seen.add(identity)
                below.append(f"{folder}{name}/")
        folders.extend(reversed(below))


def _look(path: Path, relative: str) -> tuple[SourceFile, tuple[int, int] | None]:
    """A file, or the identity of a folder."""
    try:
        status = path.stat()
    except OSError as error:
        return SourceFile(relative, 0, 0, unreadable=_why(error)), None
    if stat.S_ISDIR(status.st_mode):
        return SourceFile(relative, 0, 0), (status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        return SourceFile(relative, 0, 0, unreadable="neither a file nor a folder"), None
    return SourceFile(relative, status.st_size, status.st_mtime_ns), None


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _field(source: Source) -> str:
    return "spec.data.source.jsonl.path" if source.kind == "jsonl" else "spec.data.source.path"


def _how_far(path: Path) -> str:
    there = next((str(p) for p in path.parents if p.exists()), "")
    return f" ({there!r} does)" if there not in ("", ".") else f" in {str(Path.cwd())!r}"


def _nothing(source: Source, root: Path) -> str:
    if source.kind != "builtin" and has_wildcard(source.path) and not Path(source.path).exists():
        there = "" if root.is_dir() else f": the folder {str(root)!r} does not exist"
        return f"{_field(source)}: {source.path!r} matches no file{there}. `*` stays within a folder, `**` does not."
    patterns = f"include {list(source.include) or ['**']} and exclude {list(source.exclude)}"
    if source.kind == "jsonl" and not source.include:
        patterns = f"include {[JSONL_PATTERN]} and exclude {list(source.exclude)}"
    return (
        f"spec.data.source: {patterns} leave no file of {str(root)!r}. Patterns are relative to it; "
        "`*` stays within a folder (`**/*.py` finds all), and names with a leading dot must be named."
    )
