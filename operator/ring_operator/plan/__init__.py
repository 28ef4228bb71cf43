"""`TrainingJob` and machines -> `ParallelPlan`: how many ranks, in which rings, with how much work each.

A pure function, the same for a laptop and for 4,096 GPUs; it creates nothing and asks nobody. `machines` says what
there is, `degrees` settles the numbers (or refuses with the sum), `work` counts tokens, layers and arithmetic.
"""

from ring_operator.plan.machines import Machines, machines_of
from ring_operator.plan.parallel import ParallelPlan, Ring, document, plan
from ring_operator.plan.work import LayerGroup, Work

__all__ = ["LayerGroup", "Machines", "ParallelPlan", "Ring", "Work", "document", "machines_of", "plan"]
