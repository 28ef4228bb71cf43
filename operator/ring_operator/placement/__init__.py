"""`Problem` -> `Placement`: which nodes a job gets, in which groups, and in which order round each ring.

Pure and deterministic. The cost of a ring is the sum over its hops, the one from the last node to the first included,
of the weight of what the hop crosses.
"""

from ring_operator.placement.ask import Ground, find
from ring_operator.placement.problem import Placement, Problem, Refusal
from ring_operator.placement.solve import place

__all__ = ["Ground", "Placement", "Problem", "Refusal", "find", "place"]
