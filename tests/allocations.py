"""Watch what torch computes: the largest tensor of all that appear in a block of code, and the most bytes alive."""

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
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


class LiveBytes(TorchDispatchMode):
    """`peak`: the most bytes, after any operation, of memory that operations in this block have made and that lives.

    What existed before does not count, nor what an operation allocates inside and gives back.
    """

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._made = {}
        self._before = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._before |= {s._cdata for s in _storages((args, kwargs))} - self._made.keys()
        results = func(*args, **(kwargs or {}))
        new = [s for s in _storages(results) if s._cdata not in self._before and s._cdata not in self._made]
        if new:
            self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
            self._made.update({s._cdata: (StorageWeakRef(s), s.nbytes()) for s in new})
            self.peak = max(self.peak, sum(size for _, size in self._made.values()))
        return results


def _storages(tree):
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
