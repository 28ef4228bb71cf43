"""Let a trained model go on with a text: one process, one sequence, one token after the other.

Each token is computed from the whole window before it, without a cache of keys and values: for a short sample at the
end of a training that is fast enough, and it is the very same forward pass. The draws have a generator of their own
on the CPU, so that a seed gives the same text again and disturbs no other random state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ring_worker.model import Attend, Transformer


@dataclass(frozen=True, slots=True)
class Sampling:
    """`count`: tokens to draw. `context`: tokens of the window that each is drawn from, at most.

    `temperature` 0 takes the likeliest token. `top_k`: draw among so many of the likeliest (0: among all).
    """

    count: int
    context: int
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0


def generate(model: Transformer, attend: Attend, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    """Token ids that follow `prompt`, which must not be empty. Positions count from the window's start."""
    if not prompt:
        raise ValueError("generate: the prompt has no token; give at least one to go on from")
    generator = torch.Generator().manual_seed(sampling.seed)
    window = list(prompt)[-sampling.context :]
    for _ in range(sampling.count):
        token = _pick(_next_logits(model, attend, window), sampling, generator)
        window = [*window, token][-sampling.context :]
        yield token


@torch.no_grad()
def _next_logits(model: Transformer, attend: Attend, window: list[int]) -> Tensor:
    """Logits of the token after the window, fp32 on the CPU, [vocabulary]."""
    device = model.head_weight.device
    tokens = torch.tensor([window], device=device)
    hidden = model(tokens, torch.arange(len(window), device=device), attend)
    head = model.head_weight[: model.vocabulary]
    logits: Tensor = head @ hidden[0, -1].to(head.dtype)
    return logits.float().cpu()


def _pick(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    if 0 < sampling.top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    p = torch.softmax(logits / sampling.temperature, -1)
    return int(torch.multinomial(p, 1, generator=generator))
