"""A certificate authority of the test cluster's own, so that every client verifies whom it talks to.

In: a folder. Out: PEM files in it, made by the `openssl` command (3.0 or later); elliptic curves, because they are made
in milliseconds.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DAYS = 30


class CertificateError(Exception):
    """`openssl` is missing or failed."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate: Path
    key: Path


class Authority:
    """`server` and `client` sign certificates; `certificate` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        extensions = [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign",
            "subjectKeyIdentifier=hash",
        ]
        self.pair = self._make("ca", certificate_request("ring-test-authority", (), extensions))
        self.certificate = self.pair.certificate

    def server(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """`hosts`: names and addresses under which it is reached."""
        alternatives = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        extensions = [*_leaf("serverAuth"), f"subjectAltName={alternatives}"]
        return self._make(name, certificate_request(name, (), extensions), self.pair)

    def client(self, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """`user` and `groups`: as whom Kubernetes takes its holder."""
        name = "client-" + user.replace(":", "-").replace("/", "-")
        return self._make(name, certificate_request(user, groups, _leaf("clientAuth")), self.pair)

    def signing_key(self, name: str) -> KeyPair:
        """A bare key and its public half, for service account tokens."""
        pair = KeyPair(self._folder / f"{name}.pub", self._folder / f"{name}.key")
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(pair.key))
        _openssl("pkey", "-in", str(pair.key), "-pubout", "-out", str(pair.certificate))
        return pair

    def _make(self, name: str, request: str, issuer: KeyPair | None = None) -> KeyPair:
        pair = KeyPair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        config = self._folder / f"{name}.cnf"
        config.write_text(request)
        signed_by = ["-CA", str(issuer.certificate), "-CAkey", str(issuer.key)] if issuer else []
        _openssl(
            *["req", "-x509", "-config", str(config), "-days", str(DAYS), *signed_by],
            *["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"],
            *["-keyout", str(pair.key), "-out", str(pair.certificate)],
        )
        return pair


def certificate_request(name: str, groups: Sequence[str], extensions: Sequence[str]) -> str:
    """What `openssl req` reads. Kubernetes takes CN for the user and each O for a group."""
    subject = [f"{number}.O = {group}" for number, group in enumerate(groups)]
    lines = ["[req]", "prompt = no", "distinguished_name = subject", "x509_extensions = extensions"]
    lines += ["[subject]", *subject, f"CN = {name}", "[extensions]", *extensions]
    return "\n".join(lines) + "\n"


def _leaf(usage: str) -> list[str]:
    return [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={usage}",
        "subjectKeyIdentifier=hash",
        "authorityKeyIdentifier=keyid",
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _openssl(*arguments: str) -> None:
    if not shutil.which("openssl"):
        raise CertificateError("the command `openssl` (3.0 or later) is needed for the test cluster's certificates")
    said = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if said.returncode:
        raise CertificateError(f"openssl {arguments[0]} failed:\n{said.stderr}")
