"""Kubeconfig files: with a client certificate, or as a service account with a token from the API server."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

from clusterkit.certificates import KeyPair

TOKEN_SECONDS = 24 * 3600


def with_certificate(server: str, authority: Path, pair: KeyPair) -> dict[str, Any]:
    """Everything inline, so that the file may be copied anywhere."""
    user = {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    return _document(cluster, user)


def as_service_account(admin: Path, namespace: str, name: str, path: Path) -> Path:
    """Write a kubeconfig of the same cluster whose user is that service account (by a TokenRequest)."""
    with api(admin) as connection:
        request = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_SECONDS)
        )
        answer: Any = client.CoreV1Api(connection).create_namespaced_service_account_token(name, namespace, request)
    cluster = _cluster(yaml.safe_load(admin.read_text()))
    return write(path, _document(cluster, {"token": answer.status.token}, namespace))


def write(path: Path, document: Mapping[str, Any]) -> Path:
    """Readable by the owner only: it holds a key."""
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    return path


@contextlib.contextmanager
def api(kubeconfig: Path) -> Iterator[client.ApiClient]:
    """An ApiClient of this kubeconfig; the process-wide configuration stays as it is."""
    settings = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=settings)
    with client.ApiClient(settings) as connection:
        yield connection


def _cluster(document: Mapping[str, Any]) -> dict[str, Any]:
    """The cluster of the current context."""
    contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in document["clusters"]}
    return dict(clusters[contexts[document["current-context"]]["cluster"]])


def _document(cluster: Mapping[str, Any], user: Mapping[str, str], namespace: str = "default") -> dict[str, Any]:
    name = "ring-test"
    context = {"cluster": name, "user": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": dict(cluster)}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
