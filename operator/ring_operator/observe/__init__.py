"""What was seen of a job's pods -> `Observed`, the only thing that decisions are made from.

In: for each pod the end of its process (if it ended) and its agent's status (if it answered), wherever they come from:
pods of a cluster (`pods` reads those) or processes of this machine. Out: frozen values, with failures told apart by
what can be done about them. A failure counts for the epoch in which it happened: an agent that still speaks of an older
one says nothing.
"""

from ring_operator.observe.failures import Failure, FailureClass
from ring_operator.observe.job import History, Observed, PodSeen, PodState, Table, observe
from ring_operator.observe.looks import PodLook

__all__ = [
    "Failure",
    "FailureClass",
    "History",
    "Observed",
    "PodLook",
    "PodSeen",
    "PodState",
    "Table",
    "observe",
]
