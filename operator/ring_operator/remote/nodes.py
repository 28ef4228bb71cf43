"""Nodes and pods of a whole cluster, as the API server gives them."""

from __future__ import annotations

from ring_operator.remote.api import Api, Raw
from ring_operator.remote.kubeconfig import Target, settings_of

_LIVE = "status.phase!=Succeeded,status.phase!=Failed"


class Cluster:
    """Every method may raise a RemoteError."""

    def __init__(self, target: Target) -> None:
        """Nothing is asked yet."""
        self._api = Api(settings_of(target))

    @property
    def server(self) -> str:
        return self._api.server

    def nodes(self) -> list[Raw]:
        return list(self._api.list("/api/v1/nodes", "the list of nodes"))

    def pods(self) -> list[Raw]:
        """Of all namespaces, but for those that have ended."""
        return list(self._api.list("/api/v1/pods", "the pods of all namespaces", fieldSelector=_LIVE))
