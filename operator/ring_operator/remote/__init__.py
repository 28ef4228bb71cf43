"""A cluster as a person with a kubeconfig reaches it: what `ringctl submit`, `status`, `logs` and the like talk to.

In: kubeconfig, context and namespace, as kubectl takes them. Out: jobs, their pods and events as typed values, and
one kind of error, `RemoteError`, which says what was asked, what the API server answered, and the way out. The official
client is imported when a connection is opened, and not before: the other commands neither need it nor wait for it.
"""

from ring_operator.remote.errors import NotFoundError, RefusedError, RemoteError, UnreachableError

__all__ = ["NotFoundError", "RefusedError", "RemoteError", "UnreachableError"]
