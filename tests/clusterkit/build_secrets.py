"""What a build may read and an image must not keep: where packages come from, and whom to trust for it.

In: this machine's own settings of pip and apt. Out: `--secret` options for buildah or docker, for as long as the
build lasts. The Dockerfiles name the secrets `pip`, `certificates` and `apt`; a build without them uses the defaults.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clusterkit.host import Mirror, pip_settings

_CERTIFICATES = "/etc/pip.pem"  # where the Dockerfiles mount them
_PASSED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


@contextlib.contextmanager
def build_secrets(mirror: Mirror | None) -> Iterator[list[str]]:
    """`mirror`: of Debian, for a base that has none of its own."""
    with tempfile.TemporaryDirectory(prefix="ring-secrets-") as folder:
        yield [f"--secret=id={name},src={path}" for name, path in _write(Path(folder), mirror).items()]


def _write(folder: Path, mirror: Mirror | None) -> dict[str, Path]:
    settings = pip_settings()
    certificates = _certificates(settings)
    pip = {name: settings[name] for name in _PASSED if name in settings}
    secrets = {"pip": folder / "pip.conf"}
    secrets["pip"].write_text(pip_conf(pip, _CERTIFICATES if certificates else None))
    if certificates:
        secrets["certificates"] = certificates
    if mirror:
        secrets["apt"] = folder / "build.sources"
        secrets["apt"].write_text(apt_sources(mirror))
    return secrets


def _certificates(settings: dict[str, str]) -> Path | None:
    named = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    return Path(named) if named and Path(named).is_file() else None


def pip_conf(settings: dict[str, str], certificates: str | None) -> str:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    lines += [f"cert = {certificates}"] if certificates else []
    return "\n".join(["[global]", "disable-pip-version-check = true", "root-user-action = ignore", *lines]) + "\n"


def apt_sources(mirror: Mirror) -> str:
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"Types: deb\nURIs: {mirror.uri}\nSuites: {mirror.suite}\nComponents: main\nSigned-By: {keys}\n"
