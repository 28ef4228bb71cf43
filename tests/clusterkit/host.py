"""What real nodes need from the machine: Linux, root, and Debian's programs. Out: one error that lists all that lacks.

It also reads where the machine itself gets its packages from (apt, pip), so that images are built from the same places
without any place being written down here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CNI_PLUGINS = Path("/usr/lib/cni")
OTHER_WAY = "Or set KUBECONFIG to use a cluster that exists."
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

# program or plugin -> the Debian package that has it
_RUNNING = {
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    str(CNI_PLUGINS / "bridge"): "containernetworking-plugins",
    str(CNI_PLUGINS / "host-local"): "containernetworking-plugins",
}
_BUILDING = {"buildah": "buildah", "skopeo": "skopeo", "debootstrap": "debootstrap", "gcc": "gcc"}


class HostError(Exception):
    """This machine cannot run real nodes; the text says why and what to do."""


def check_host() -> None:
    """Raises HostError."""
    if sys.platform != "linux" or os.geteuid() != 0:
        who = f"user {os.geteuid()} on {sys.platform}"
        raise HostError(f"Real nodes need root on Linux, and this is {who}. {OTHER_WAY}")
    wanted = {**_RUNNING, **_BUILDING}
    missing = sorted({package for program, package in wanted.items() if not _found(program)})
    if missing:
        raise HostError(
            f"Real nodes need {', '.join(missing)}. On Debian or Ubuntu: apt-get install --yes "
            f"--no-install-recommends {' '.join(missing)}. {OTHER_WAY}"
        )


def _found(program: str) -> bool:
    if os.sep in program:
        return Path(program).exists()
    return shutil.which(program, path=search_path()) is not None


def search_path() -> str:
    """PATH, and where a system keeps what only root runs."""
    return f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where apt gets Debian from."""

    uri: str
    suite: str


def debian_mirror(folder: Path = Path("/etc/apt")) -> Mirror:
    """The first Debian mirror of apt's sources, in either of their two formats. Raises HostError."""
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.sources"))]
    files += sorted(folder.glob("sources.list.d/*.list"))
    for path in files if "debian" in platform.freedesktop_os_release().get("ID", "") else []:
        if path.exists() and (mirror := _mirror_in(path.read_text())):
            return mirror
    raise HostError(
        f"No Debian mirror is in {folder}, so no base image can be made. Name one in RING_BASE_IMAGE, for example "
        "python:3.11.13-slim-bookworm."
    )


def _mirror_in(text: str) -> Mirror | None:
    for block in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(URIs|Suites|Components):\s*(.+)$", block, re.MULTILINE))
        if {"URIs", "Suites"} <= fields.keys() and "main" in fields.get("Components", ""):
            return Mirror(fields["URIs"].split()[0], fields["Suites"].split()[0])
    line = re.search(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+.*\bmain\b", text, re.MULTILINE)
    return Mirror(line[1], line[2]) if line else None


def pip_settings() -> dict[str, str]:
    """pip's settings on this machine, whatever file or variable they come from: `index-url`, `cert`, `proxy`, ..."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60)
    found = re.findall(r"^[^=]*?\.([a-z-]+)='(.*)'$", said.stdout, re.MULTILINE)
    return {name.removeprefix("default-"): value for name, value in found}
