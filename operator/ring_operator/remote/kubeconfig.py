"""Kubeconfig, context and namespace -> settings of the official client, as kubectl would choose them.

The file: `--kubeconfig`, else the files in KUBECONFIG, else ~/.kube/config; inside a pod without any of them, the pod's
own service account. The namespace: `--namespace`, else the context's, else `default`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ring_operator.remote.errors import UnreachableError

_NAMESPACE_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT = "~/.kube/config"
_CONNECTIONS = 40  # followed logs take one each


@dataclass(frozen=True, slots=True)
class Target:
    """What a person said of the cluster; None: not said."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`configuration`: the client's. `namespace`: the one that is meant."""

    configuration: Any
    namespace: str


def settings_of(target: Target) -> Settings:
    """Raises UnreachableError where the package, the file or what it names is not there."""
    if importlib.util.find_spec("kubernetes") is None:
        remedy = "Install it: pip install 'ring-training-operator[operator]'"
        raise UnreachableError(
            "to talk to a cluster, the package kubernetes is needed, and it is not installed", remedy
        )
    files = _files(target)
    if not files:
        return _in_pod(target) if _is_in_pod(target) else _no_file(target)
    return _from_files(os.pathsep.join(files), target)


def _files(target: Target) -> list[str]:
    """Those that are there, of those that are named."""
    named = target.kubeconfig or os.environ.get("KUBECONFIG") or _DEFAULT
    return [path for path in named.split(os.pathsep) if path and os.path.exists(os.path.expanduser(path))]


def _no_file(target: Target) -> Settings:
    """Raises."""
    named = target.kubeconfig or os.environ.get("KUBECONFIG") or _DEFAULT
    by = "--kubeconfig: " if target.kubeconfig else "KUBECONFIG: " if os.environ.get("KUBECONFIG") else ""
    raise UnreachableError(
        f"{by}there is no kubeconfig at {named}, so no cluster is known", "Name one with --kubeconfig FILE."
    )


def _is_in_pod(target: Target) -> bool:
    return target.kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and _NAMESPACE_IN_POD.exists()


def _in_pod(target: Target) -> Settings:
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise UnreachableError(f"this pod's service account: {error}") from None
    return Settings(configuration, target.namespace or _NAMESPACE_IN_POD.read_text().strip())


def _from_files(files: str, target: Target) -> Settings:
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries, configuration.connection_pool_maxsize = 1, _CONNECTIONS
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it warns of is said by our errors
    with _complaints() as complaints:
        try:
            contexts, current = config.list_kube_config_contexts(config_file=files)
            context = _context(contexts, current, target, files)
            config.load_kube_config(
                config_file=files,
                context=context["name"],
                client_configuration=configuration,
                persist_config=False,
            )
        except UnreachableError:
            raise
        except Exception as error:  # the loader lets pass what YAML, base64, OAuth and plugins raise
            raise _unreadable(files, error, target) from None
    if complaints and not configuration.api_key and not configuration.cert_file:
        raise UnreachableError(f"{files}: {'; '.join(complaints)}", "Log in to the cluster again, or mend the file.")
    return Settings(configuration, target.namespace or context["context"].get("namespace") or "default")


def _context(contexts: list[Any], current: Any, target: Target, files: str) -> Any:
    if target.context is None:
        return current
    for context in contexts:
        if context["name"] == target.context:
            return context
    known = ", ".join(str(context["name"]) for context in contexts) or "none at all"
    raise UnreachableError(f"--context: {target.context} is not in {files}", f"There are: {known}.")


def _unreadable(files: str, error: Exception, target: Target) -> UnreachableError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if target.context is None and ("current-context" in reason or "''" in reason):
        return UnreachableError(f"{files}: no context is chosen in it ({reason})", "Name one with --context.")
    return UnreachableError(f"{files}: cannot be used: {reason}", "Mend it, or name another with --kubeconfig FILE.")


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the loader logs instead of raising (a login plugin that fails), kept from the screen."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, root = Listener(), logging.getLogger()
    root.addHandler(listener)
    try:
        yield said
    finally:
        root.removeHandler(listener)
