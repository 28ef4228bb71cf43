"""What a source lists, which patterns take what, and what every bad document is called."""

from __future__ import annotations

import itertools
import json
import os
import sysconfig
from pathlib import Path

import pytest

from data_samples import write_corpus
from ring_worker.contract import Source
from ring_worker.data.documents import Document, Piece, read_piece
from ring_worker.data.errors import DataConfigError
from ring_worker.data.faults import Fault
from ring_worker.data.globs import Selection
from ring_worker.data.shards import count_line_ends, range_borders
from ring_worker.data.sources import Listing, list_source

NOWHERE = Path("nowhere")


def listed(source: Source, leave_out: Path = NOWHERE) -> list[str]:
    return [file.path for file in list_source(source, leave_out).files]


def read_all(listing: Listing) -> list[Document | Fault]:
    pieces = [Piece(file, 0, file.size_bytes) for file in listing.files]
    return [found for piece in pieces for found in read_piece(listing.root, piece, listing.field)]


@pytest.mark.parametrize(
    "pattern, path, wanted",
    [
        ("*.py", "a.py", True),
        ("*.py", "sub/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("**/*.py", "x/y/a.pyc", False),
        ("src/**", "src/a", True),
        ("src/**", "src/x/y", True),
        ("src/**", "src", False),
        ("src/", "src/x/y", True),
        ("src/**/test/*.py", "src/test/a.py", True),
        ("src/**/test/*.py", "src/x/y/test/a.py", True),
        ("src/**/test/*.py", "src/mytest/a.py", False),
        ("**", ".hidden", False),
        ("**", "x/.git/config", False),
        (".git/**", ".git/config", True),
        ("x/.*", "x/.profile", True),
        ("a?.txt", "ab.txt", True),
        ("a?.txt", "a/.txt", False),
        ("[ab]*.txt", "b1.txt", True),
        ("[!ab]*.txt", "b1.txt", False),
        ("[!ab]*.txt", "c1.txt", True),
        ("a[.txt", "a[.txt", True),
        ("a+(b).txt", "a+(b).txt", True),
        ("***.txt", "abc.txt", True),
    ],
)
def test_a_pattern_takes_what_a_shell_would(pattern: str, path: str, wanted: bool) -> None:
    assert Selection.of([pattern], []).wants(path) is wanted


def test_what_excludes_reaches_hidden_names_too() -> None:
    selection = Selection.of([".*/**", "**"], ["**/*.tmp"])
    assert selection.wants(".cache/a.txt")
    assert not selection.wants(".cache/.a.tmp")


def test_the_order_is_that_of_the_relative_paths(tmp_path: Path) -> None:
    names = ["b.txt", "a/z.txt", "a.txt", "a/b/c.txt", "B.txt"]
    write_corpus(tmp_path, dict.fromkeys(names, b"x"))
    assert listed(Source(kind="path", path=str(tmp_path))) == sorted(names)


@pytest.mark.parametrize(
    "path, include, exclude, expected",
    [
        ("", (), (), ["a.md", "src/a.py", "src/deep/b.py"]),
        ("", ("**/*.py",), (), ["src/a.py", "src/deep/b.py"]),
        ("", ("**/*.py",), ("src/deep/**",), ["src/a.py"]),
        ("", (), ("**/*.py",), ["a.md"]),
        ("/a.md", (), (), ["a.md"]),
        ("/src/*.py", (), (), ["a.py"]),
        ("/**/*.py", (), ("**/a.py",), ["src/deep/b.py"]),
        ("/s*/deep/*", (), (), ["src/deep/b.py"]),
    ],
)
def test_a_path_is_a_folder_a_file_or_a_glob(
    tmp_path: Path, path: str, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    write_corpus(tmp_path, dict.fromkeys(["a.md", "src/a.py", "src/deep/b.py", ".git/c.py"], b"x"))
    found = listed(Source(kind="path", path=f"{tmp_path}{path}", include=include, exclude=exclude))
    assert found == expected


def test_a_name_with_wildcards_is_taken_as_it_is_when_it_exists(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a[1]*.txt": b"x", "a1.txt": b"y"})
    assert listed(Source(kind="path", path=str(tmp_path / "a[1]*.txt"))) == ["a[1]*.txt"]


def test_loops_of_links_end_and_each_folder_is_entered_once(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a/x.txt": b"x", "z/y.txt": b"y"})
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    assert listed(Source(kind="path", path=str(tmp_path))) == ["a/x.txt", "z/y.txt"]


def test_the_prepared_data_are_never_a_source(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a.txt": b"x", "runs/data/progress.json": b"{}"})
    assert listed(Source(kind="path", path=str(tmp_path)), leave_out=tmp_path / "runs/data") == ["a.txt"]


def test_jsonl_takes_the_jsonl_files_of_a_folder(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a.jsonl": b"{}", "b.json": b"{}", "deep/c.jsonl": b"{}"})
    assert listed(Source(kind="jsonl", path=str(tmp_path))) == ["a.jsonl", "deep/c.jsonl"]
    assert listed(Source(kind="jsonl", path=str(tmp_path / "b.json"))) == ["b.json"]


def test_the_standard_library_is_its_modules_without_tests_and_packages() -> None:
    files = listed(Source(kind="builtin", name="python-stdlib", exclude=("idlelib/**",)))
    assert {"ast.py", "json/decoder.py"} <= set(files)
    folders = {folder for file in files for folder in file.split("/")[:-1]}
    assert not folders & {"site-packages", "test", "tests", "idle_test", "__pycache__", "idlelib"}
    root = Path(sysconfig.get_paths()["stdlib"])
    assert all((root / file).stat().st_size and file.endswith(".py") for file in files)


def test_include_narrows_the_standard_library() -> None:
    files = listed(Source(kind="builtin", name="python-stdlib", include=("json/*",)))
    assert files
    assert all(file.startswith("json/") for file in files)


@pytest.mark.parametrize(
    "source, message",
    [
        (Source(kind="path", path="ROOT/no/such"), r"source\.path: 'ROOT/no/such' does not exist \('ROOT' does\)"),
        (Source(kind="jsonl", path="ROOT/no.jsonl"), r"source\.jsonl\.path: 'ROOT/no\.jsonl' does not exist"),
        (Source(kind="path", path="ROOT/*.md"), r"'ROOT/\*\.md' matches no file\. `\*` stays within a folder"),
        (Source(kind="path", path="ROOT/x/*"), r"matches no file: the folder 'ROOT/x' does not exist"),
        (
            Source(kind="path", path="ROOT", include=("*.py",)),
            r"include \['\*\.py'\] and exclude \[\] leave no file of",
        ),
        (Source(kind="path", path="ROOT", exclude=("**",)), r"exclude \['\*\*'\] leave no file of 'ROOT'"),
        (Source(kind="path", path="ROOT", include=("[z-a]",)), r"include: '\[z-a\]' is not a glob pattern"),
        (Source(kind="path", path=""), r"source\.path: it is empty"),
        (Source(kind="parquet", path="ROOT"), r"'parquet' cannot be read; path, jsonl and builtin can"),
        (Source(kind="builtin", name="novels"), r"builtin: 'novels' does not exist; there is 'python-stdlib'"),
    ],
)
def test_a_source_without_files_says_what_is_there(tmp_path: Path, source: Source, message: str) -> None:
    write_corpus(tmp_path, {"a.txt": b"x"})
    there = Source(
        source.kind, source.path.replace("ROOT", str(tmp_path)), source.include, source.exclude, "", source.name
    )
    with pytest.raises(DataConfigError, match=message.replace("ROOT", str(tmp_path))):
        list_source(there, NOWHERE)


@pytest.mark.parametrize(
    "text, fault",
    [
        (b"", "bad.txt: the file is empty"),
        (b"one\ntwo\nab\xffcd\n", "bad.txt:3: not UTF-8: byte 0xff at offset 10"),
        (b"cut \xe6\x9d", "bad.txt:1: not UTF-8: byte 0xe6 at offset 4"),
        (b"overlong \xc0\xaf", "bad.txt:1: not UTF-8: byte 0xc0 at offset 9"),
        (b"surrogate \xed\xa0\x80", "bad.txt:1: not UTF-8: byte 0xed at offset 10"),
    ],
)
def test_a_bad_file_is_named_with_line_and_offset(tmp_path: Path, text: bytes, fault: str) -> None:
    write_corpus(tmp_path, {"bad.txt": text})
    found = read_all(list_source(Source(kind="path", path=str(tmp_path)), NOWHERE))
    assert [str(f) for f in found] == [fault]


@pytest.mark.parametrize(
    "text",
    [b"\xef\xbb\xbfwith a mark", b"dos\r\nlines\r\n", b"nul\0byte", b"\n", b" ", "東京 🙂".encode(), b"no end of line"],
)
def test_text_stays_as_it_is(tmp_path: Path, text: bytes) -> None:
    write_corpus(tmp_path, {"a.txt": text})
    assert read_all(list_source(Source(kind="path", path=str(tmp_path)), NOWHERE)) == [Document("a.txt", 0, text)]


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    os.mkfifo(tmp_path / "pipe")
    found = read_all(list_source(Source(kind="path", path=str(tmp_path)), NOWHERE))
    assert [str(f) for f in found] == [
        "dangling: cannot be read: No such file or directory",
        "itself: cannot be read: Too many levels of symbolic links",
        "pipe: cannot be read: neither a file nor a folder",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"closed.txt": b"x", "folder/a.txt": b"x"})
    (tmp_path / "closed.txt").chmod(0)
    (tmp_path / "folder").chmod(0)
    try:
        found = read_all(list_source(Source(kind="path", path=str(tmp_path)), NOWHERE))
    finally:
        (tmp_path / "folder").chmod(0o700)
    assert [str(f) for f in found] == [
        "closed.txt: cannot be read: Permission denied",
        "folder/: cannot be read: Permission denied",
    ]


def test_a_file_that_changes_after_the_listing_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a.txt": b"before"})
    listing = list_source(Source(kind="path", path=str(tmp_path)), NOWHERE)
    (tmp_path / "a.txt").write_bytes(b"afterwards")
    assert [str(f) for f in read_all(listing)] == [
        "a.txt: changed while the data were prepared (6 bytes then, 10 now); start again"
    ]


@pytest.mark.parametrize(
    "line, fault",
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"", "not JSON: an empty line"),
        (b"   ", "not JSON: an empty line"),
        (b'{"text": "\xff"}', "not UTF-8: byte 0xff at offset 28"),
        (b'{"text": "\\ud800!"}', "not UTF-8: half of a surrogate pair, \\ud800, is character 0 of field 'text'"),
        (b'{"body": "x", "id": 7}', "no field 'text'; the object has 'body', 'id'"),
        (b"{}", "no field 'text'; the object has none"),
        (b'["x"]', "a list, not an object with the field 'text'"),
        (b'"x"', "a string, not an object with the field 'text'"),
        (b"null", "null, not an object with the field 'text'"),
        (b'{"text": 7}', "field 'text' is a number, not a string"),
        (b'{"text": null}', "field 'text' is null, not a string"),
        (b'{"text": true}', "field 'text' is true or false, not a string"),
        (b'{"text": ["x"]}', "field 'text' is a list, not a string"),
        (b'{"text": ""}', "field 'text' is empty"),
        (b"[" * 100_000, "not JSON that can be read: "),
        (b'{"n": ' + b"1" * 5000 + b"}", "not JSON that can be read: "),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_read(tmp_path: Path, line: bytes, fault: str) -> None:
    write_corpus(tmp_path, {"a.jsonl": b'{"text": "first"}\n' + line + b'\n{"text": "last"}\n'})
    first, bad, last = read_all(list_source(Source(kind="jsonl", path=str(tmp_path)), NOWHERE))
    assert (first, last) == (Document("a.jsonl", 1, b"first"), Document("a.jsonl", 3, b"last"))
    assert str(bad).startswith(f"a.jsonl:2: {fault}")


def test_jsonl_may_have_a_mark_dos_line_ends_and_no_last_one(tmp_path: Path) -> None:
    write_corpus(tmp_path, {"a.jsonl": b'\xef\xbb\xbf{"text": "one\\r\\n"}\r\n{"text": "t\\u00e4o"}'})
    found = read_all(list_source(Source(kind="jsonl", path=str(tmp_path)), NOWHERE))
    assert found == [Document("a.jsonl", 1, b"one\r\n"), Document("a.jsonl", 2, "täo".encode())]


@pytest.mark.parametrize("range_bytes", [1, 2, 7, 16, 17, 18, 40, 1000])
def test_ranges_of_a_jsonl_file_give_every_line_once(tmp_path: Path, range_bytes: int) -> None:
    lines = [json.dumps({"text": "x" * (i % 9)}) for i in range(12)] + ["", "{"]
    write_corpus(tmp_path, {"a.jsonl": "\n".join(lines).encode()})
    listing = list_source(Source(kind="jsonl", path=str(tmp_path)), NOWHERE)
    (file,) = listing.files
    found = []
    before = 0
    borders = range_borders(file.size_bytes, range_bytes)
    for start, stop in itertools.pairwise(borders):
        found += read_piece(listing.root, Piece(file, start, stop, before), listing.field)
        before += count_line_ends(tmp_path / "a.jsonl", start, stop)
    assert found == read_all(listing)
    assert [f.line for f in found] == list(range(1, 15))
