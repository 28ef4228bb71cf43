"""What the API server says of a RingTrainingJob that it is asked to create or to change, without doing so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clusterkit.kube import MERGE, Kube, KubeError
from ring_operator import names


class DryRun:
    """Asks as `kubectl apply` does: unknown fields are errors. Answers are messages; an empty one: it is valid."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kube = Kube(kubeconfig)
        self._path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._kube.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._kube.__aexit__(kind, error, at))
        self._runner.close()

    def create(self, manifest: dict[str, Any]) -> str:
        return self._ask("POST", self._path, manifest, "application/json")

    def change(self, name: str, patch: dict[str, Any]) -> str:
        """A merge patch of a job that is there."""
        return self._ask("PATCH", f"{self._path}/{name}", patch, MERGE)

    def _ask(self, method: str, path: str, body: dict[str, Any], kind: str) -> str:
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        try:
            self._runner.run(self._kube.request(method, path, body, kind, query))
        except KubeError as error:
            return str(error)
        return ""
