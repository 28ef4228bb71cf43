"""Programs of the test cluster are built once, whole or not at all, by a Go that is new enough (a fake one here)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterkit import binaries, toolchain
from clusterkit.binaries import BuildError, binary
from clusterkit.toolchain import GoMissingError, find_go

FAKE_GO = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$1 $2" in
  "env GOVERSION") echo go1.26.8 ;;
  "mod download") echo '{"GoMod": "'"$FOUND"'"}' ;;
  build*)
    while [ "$1" != -o ]; do shift; done
    sleep 0.2
    echo half > "$2"
    if [ -e "$BROKEN" ]; then echo "undefined: thing"; exit 2; fi
    echo whole > "$2"
    ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the fake Go was asked, line by line; the cache is empty."""
    (tmp_path / "bin").mkdir()
    go = tmp_path / "bin" / "go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    (tmp_path / "found.mod").write_text("module etcd\n\ngo 1.26.0\n")
    monkeypatch.setenv("PATH", f"{go.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("calls", "broken"):
        monkeypatch.setenv(name.upper(), str(tmp_path / name))
    monkeypatch.setenv("FOUND", str(tmp_path / "found.mod"))
    return tmp_path / "calls"


def test_a_program_is_built_once(calls: Path):
    said: list[str] = []
    path = binary("etcd", say=said.append)
    assert path.read_text() == "whole\n"
    assert (path.parent.name, path.name) == ("etcd-v3.7.3", "etcd")
    before = calls.read_text()
    assert "get go.etcd.io/etcd/server/v3@v3.7.3" in before
    assert binary("etcd", say=said.append) == path
    assert calls.read_text() == before
    assert any("building etcd v3.7.3" in line for line in said)


def test_a_build_that_fails_leaves_no_program_and_says_why(calls: Path, tmp_path: Path):
    (tmp_path / "broken").touch()
    folder = tmp_path / "cache" / "ring-training-operator" / "bin" / "etcd-v3.7.3"
    (folder / ".build-killed").mkdir(parents=True)
    with pytest.raises(BuildError, match=r"exit code 2(.|\n)*undefined: thing"):
        binary("etcd", say=lambda _: None)
    assert list(folder.iterdir()) == []
    (tmp_path / "broken").unlink()
    assert binary("etcd", say=lambda _: None).read_text() == "whole\n"


def test_two_processes_build_it_once(calls: Path):
    command = [sys.executable, "-m", "clusterkit.binaries", "etcd"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=60)[0] for process in both}
    assert answers == {f"{binaries.cached(binaries.program('etcd'))}\n"}
    assert sum(line.startswith("build ") for line in calls.read_text().splitlines()) == 1


def test_an_unknown_program_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]):
    assert binaries.main(["etcdd"]) == 1
    assert capsys.readouterr().err.startswith("error: 'etcdd' is no program of the test cluster; there are containerd,")


def test_where_go_is_missing_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolchain, "_candidates", lambda cache: [])
    monkeypatch.setattr(toolchain.sys, "executable", "/bin/false")
    with pytest.raises(GoMissingError, match=r"needs Go 1\.26\.6 or later(.|\n)*Install Go(.|\n)*KUBECONFIG"):
        find_go(tmp_path, lambda _: None)


def test_an_old_go_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, new = _go(tmp_path / "old", "1.22.1"), _go(tmp_path / "new", "1.27.0")
    monkeypatch.setattr(toolchain, "_candidates", lambda cache: [old, new])
    assert find_go(tmp_path, lambda _: None) == new


def _go(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho go{version}\n")
    path.chmod(0o755)
    return path
