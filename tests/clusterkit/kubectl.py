"""`kubectl` on one kubeconfig: `kubectl("get", "pods")` gives what it prints, `kubectl.json(...)` what it found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

SECONDS = 120


class KubectlError(Exception):
    """It ended with another code than 0; the text is what it complained about."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`cache`: where it keeps what it learnt of the API; None: where it does for the user."""

    program: Path
    kubeconfig: Path
    cache: Path | None = None
    namespace: str | None = None

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Raises KubectlError."""
        cache = [f"--cache-dir={self.cache}"] if self.cache else []
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *cache, *namespace, *arguments]
        said = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS)
        if said.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {said.stderr.strip()}")
        return said.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*arguments, "--output=json"))
        return found

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Server-side, all in one call."""
        self("apply", "--server-side", "--filename=-", stdin=_list(manifests))

    def create(self, *manifests: dict[str, Any]) -> None:
        self("create", "--filename=-", stdin=_list(manifests))

    def within(self, namespace: str) -> Self:
        return replace(self, namespace=namespace)

    def acting_as(self, kubeconfig: Path) -> Self:
        return replace(self, kubeconfig=kubeconfig)


def _list(manifests: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
