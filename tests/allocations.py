"""Watch what torch computes: the largest tensor, of all that appear in a block of code."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """`largest`: elements of the largest result of any operation, backward passes included."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        return results
