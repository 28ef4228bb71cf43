"""What the world is told of a job: the status document and the conditions in it."""

from ring_operator.status.document import JobStatus

__all__ = ["JobStatus"]
