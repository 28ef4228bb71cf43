"""Pulls out of the memory of another GPU of this node, through torch's symmetric memory. Not run on a GPU yet."""


class SymmetricTransport: ...
