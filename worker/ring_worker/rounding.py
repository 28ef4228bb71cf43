"""Which dtype is computed in and which one sums are kept in, for the functions that write their own gradient.

Torch's autocast looks at operations one by one; a function with a backward of its own must decide for itself, once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product of `x` is computed in: autocast's dtype where autocast is on, else that of `x`."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over tokens are kept in: fp32, or fp64 where all is fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    return torch.autocast(x.device.type, enabled=False)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, summed in the dtype of `total`, which may be finer than that of `a` and `b`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)
