"""The programs of the test cluster, built from their Go modules and kept: `binary("kube-apiserver")` gives a path.

In: a name and, for Kubernetes, a version (`RING_KUBERNETES`, `1.37` by default). Out: the path of a program. What is
not in the cache is built there, which takes minutes and is said as it goes; Go's own checksum database vouches for the
sources. Two processes never build from the same module at once, and a program appears in the cache when it is whole.

`python -m clusterkit.binaries [NAME...]` builds from the command line (without a name: the control plane).

The cache: $XDG_CACHE_HOME/ring-training-operator/{bin,tools}/MODULE-VERSION/, where `bin` has the programs and `tools`
the module that builds them, with the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from clusterkit.progress import CommandError, Say, run_shown, say_on_stderr
from clusterkit.sources import CONTROL_PLANE, DEFAULT_KUBERNETES, Program, Source, go_mod, program
from clusterkit.toolchain import GoMissingError, find_go


class BuildError(Exception):
    """A program could not be built; the text says why and what to do."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ring-training-operator"


def wanted_kubernetes() -> str:
    return os.environ.get("RING_KUBERNETES") or DEFAULT_KUBERNETES


def binary(name: str, version: str | None = None, say: Say = say_on_stderr) -> Path:
    """`version`: of Kubernetes. Raises BuildError."""
    try:
        wanted = program(name, version or wanted_kubernetes())
        path = cached(wanted)
        return path if path.exists() else _build(wanted, say)
    except (ValueError, GoMissingError, CommandError) as error:
        raise BuildError(str(error)) from None


def cached(wanted: Program) -> Path:
    """Where the program is, or will be."""
    return cache_folder() / "bin" / wanted.source.label / wanted.name


def _build(wanted: Program, say: Say) -> Path:
    path, tools = cached(wanted), cache_folder() / "tools" / wanted.source.label
    path.parent.mkdir(parents=True, exist_ok=True)
    tools.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(tools, say):
        if path.exists():  # built while this process waited
            return path
        go = find_go(cache_folder(), say)
        if not (tools / ".ready").exists():
            _make_module(go, wanted.source, tools, say)
        _compile(go, wanted, tools, path, say)
    return path


def _compile(go: Path, wanted: Program, tools: Path, path: Path, say: Say) -> None:
    say(f"building {wanted.name} {wanted.source.version} from source, once (log: {tools / 'log'})")
    started = time.monotonic()
    for abandoned in path.parent.glob(".build-*"):  # by a build that was killed; the lock says that none is under way
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        new = Path(folder) / wanted.name
        command = [str(go), "build", "-trimpath", "-ldflags", wanted.link_flags, "-o", str(new), wanted.package]
        run_shown(command, tools, tools / "log", f"building {wanted.name}", environment=_environment(go), say=say)
        new.replace(path)
    say(f"built {wanted.name} {wanted.source.version} in {time.monotonic() - started:.0f} s: {path}")


def _make_module(go: Path, source: Source, tools: Path, say: Say) -> None:
    """A module that requires `source`; `go get` adds what its programs need, in the versions that `source` asks for."""
    log, environment = tools / "log", _environment(go)
    for stale in ("go.mod", "go.sum"):
        (tools / stale).unlink(missing_ok=True)
    said = subprocess.run(
        [str(go), "mod", "download", "-json", f"{source.module}@{source.version}"],
        cwd=tools,
        env=environment,
        capture_output=True,
        text=True,
    )
    if said.returncode:
        raise CommandError(f"{source.module}@{source.version} cannot be downloaded:\n{said.stdout}{said.stderr}")
    (tools / "go.mod").write_text(go_mod(source, Path(json.loads(said.stdout)["GoMod"]).read_text()))
    packages = [f"{package}@{source.version}" for package in source.packages.values()]
    run_shown([str(go), "get", *packages], tools, log, f"modules of {source.label}", environment=environment, say=say)
    (tools / ".ready").touch()


def _environment(go: Path) -> dict[str, str]:
    """The user's own Go settings (proxy, checksum database, cache), but no C and no workspace from around here."""
    path = f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "CGO_ENABLED": "0", "GOWORK": "off"}


@contextlib.contextmanager
def _one_at_a_time(tools: Path, say: Say) -> Iterator[None]:
    """The kernel gives the lock back when its holder ends, however it ends."""
    with (tools / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that builds from {tools.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(names: Sequence[str]) -> int:
    try:
        for name in names or CONTROL_PLANE:
            print(binary(name), flush=True)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
