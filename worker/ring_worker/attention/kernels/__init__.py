"""Kernels behind one interface; `choose` says which one a tensor gets."""

from __future__ import annotations

from functools import lru_cache

import torch

from ring_worker.attention.kernels.fastest import Shape, fastest, seconds_of
from ring_worker.attention.kernels.interface import Kernel


def choose(device: torch.device, dtype: torch.dtype, whole: Shape | None = None) -> Kernel:
    """The fastest kernel that computes this dtype on this device.

    `whole`: the shape, if the one block that is to come holds all keys of its rows in one run, as in a ring of one rank
    with a causal or a full mask. Then cuDNN's and flash's kernels are exact, too, and on a GPU the fastest is measured,
    once for a shape, except where deterministic algorithms are asked for: then Triton's kernel runs with the table's
    tiles, not with the fastest. In a ring the libraries' kernels would round partial results.
    """
    if dtype == torch.float64:
        from ring_worker.attention.kernels.reference import ReferenceKernel

        return ReferenceKernel()
    if device.type == "cuda":
        return _on_gpu(device, dtype, whole)
    from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel

    return CpuFlashKernel()


def _on_gpu(device: torch.device, dtype: torch.dtype, whole: Shape | None) -> Kernel:
    from ring_worker.attention.kernels.library import available
    from ring_worker.attention.kernels.triton_kernel import TritonKernel

    if torch.are_deterministic_algorithms_enabled():
        return TritonKernel(tune=False)
    names = available(device, dtype, whole.head_size, whole.value_size) if whole else ()
    return _measured(device, dtype, whole.cut(), names) if whole and names else TritonKernel()


@lru_cache(maxsize=64)
def _measured(device: torch.device, dtype: torch.dtype, shape: Shape, names: tuple[str, ...]) -> Kernel:
    from ring_worker.attention.kernels.library import LibraryKernel
    from ring_worker.attention.kernels.triton_kernel import TritonKernel

    own = TritonKernel()
    candidates: list[Kernel] = [own, *(LibraryKernel(name, own) for name in names)]
    return fastest(candidates, lambda kernel: seconds_of(kernel, shape, device, dtype))
