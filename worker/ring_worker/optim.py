"""The optimizer: AdamW on fp32 weights, a learning rate that is a pure function of the step, and clipping.

The weights that the model holds are the fp32 master weights; bf16 copies come and go with autocast. Every rank holds
all weights and the same summed gradients, so that each one computes the same norm and takes the same step by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ring_worker import contract


def make_optimizer(model: nn.Module, optimizer: contract.Optimizer) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101). Decays the matrices that multiply, an untied head among them.

    Norms and sinks are left alone, as they have no scale to lose, and so are embeddings, of which a step touches few
    rows: decay would shrink the rare ones while they are not seen. A tied head is an embedding.
    """
    spared = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    decayed = [p for p in model.parameters() if p.dim() > 1 and id(p) not in spared]
    ids = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": optimizer.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in ids], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optimizer.lr, betas=optimizer.betas, fused=True)


def learning_rate(schedule: contract.Schedule, optimizer: contract.Optimizer, step: int, total_steps: int) -> float:
    """The rate of step `step`, counted from 0, of `total_steps`.

    Rises evenly over `warmup_steps`, of which the last one has the full rate. Then `constant` stays there, and
    `cosine` (arXiv 1608.03983) falls to `final_ratio` of it, reached at the last step.
    """
    if schedule.kind not in ("cosine", "constant"):
        raise ValueError(f"training.schedule.kind: {schedule.kind!r} is none of cosine, constant")
    if step < schedule.warmup_steps:
        return optimizer.lr * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return optimizer.lr
    falling_steps = max(total_steps - max(schedule.warmup_steps, 1), 1)
    done = min((step - max(schedule.warmup_steps, 1) + 1) / falling_steps, 1.0)
    ratio = schedule.final_ratio + (1.0 - schedule.final_ratio) * 0.5 * (1.0 + math.cos(math.pi * done))
    return optimizer.lr * ratio


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down to a global norm of at most `max_norm`; their norm before, an fp64 scalar.

    Summed in the order of the parameters, and over them in fp64, so that equal gradients give equal bits. Nothing waits
    for the device. A norm that is not finite leaves gradients of no use: look at it before the step.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in grads])
    norm = torch.linalg.vector_norm(norms, dtype=torch.float64)
    scale = (max_norm / norm).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale)
    return cast(Tensor, norm)
