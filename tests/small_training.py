"""A training of a few numbers, for what is saved and loaded of it."""

import torch
from torch import nn


def small_model(seed: int, width: int) -> tuple[nn.Module, torch.optim.AdamW]:
    """From `width` numbers to as many."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, width + 8), nn.Tanh(), nn.Linear(width + 8, width, bias=False))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    """Steps first..last, the same in every process; their losses."""
    width = next(model.parameters()).shape[1]
    losses = []
    for step in range(first, last + 1):
        batch = torch.randn(8, width, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = (model(batch) - batch).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
