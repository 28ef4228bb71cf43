"""Kernels behind one interface; `choose` says which one a tensor gets."""

from __future__ import annotations

import torch

from ring_worker.attention.kernels.interface import Kernel


def choose(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel that computes this dtype on this device."""
    if dtype == torch.float64:
        from ring_worker.attention.kernels.reference import ReferenceKernel

        return ReferenceKernel()
    if device.type == "cuda":
        from ring_worker.attention.kernels.triton_kernel import TritonKernel

        return TritonKernel()
    from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel

    return CpuFlashKernel()
