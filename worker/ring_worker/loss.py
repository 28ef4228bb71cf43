"""Cross-entropy fused with the head, in chunks of tokens: the logits of a long sequence are never there at once.

In: hidden states, the head's weight, labels (-100: no label, no loss). Out: the *sum* of the losses and the number of
labels; the caller divides by the number over all ranks, so that a rank without any label is legal and adds zero.

A million tokens times 128 thousand logits are half a terabyte in fp32. The loss is a sum, so a chunk's gradient is
known up to the one factor that the backward pass brings: it is computed at once, while the chunk's logits are there.
The head's gradient is summed over chunks in fp32, whatever the dtype of the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ring_worker.rounding import add_product, sum_dtype, without_autocast

IGNORED = -100
"""The label of a token that has no loss."""


def chunked_cross_entropy(
    hidden_SC: Tensor, head_weight_VC: Tensor, labels_S: Tensor, chunk_tokens: int, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """(sum of -ln p over the labelled tokens, fp32 scalar; their number, int64 scalar), both on the device.

    Products are computed in the dtype of `hidden`; rows of the head from `vocabulary` on have no part in it. One
    backward pass only: its gradients are scaled in place.
    """
    total: Tensor = _CrossEntropy.apply(hidden_SC, head_weight_VC, labels_S, chunk_tokens, vocabulary)
    return total, (labels_S != IGNORED).sum()


@torch.no_grad()
def token_losses(
    hidden_SC: Tensor, head_weight_VC: Tensor, labels_S: Tensor, chunk_tokens: int, vocabulary: int
) -> Tensor:
    """-ln p of each label, fp32 [S], 0 where there is none; without gradient."""
    with without_autocast(hidden_SC):
        head = head_weight_VC.to(hidden_SC.dtype)
        chunks = [
            _token_losses(_log_softmax(hidden_SC[rows], head, vocabulary), labels_S[rows])
            for rows in _chunks(hidden_SC.shape[0], chunk_tokens)
        ]
    return torch.cat(chunks)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, labels: Tensor, chunk_tokens: int, vocabulary: int
    ) -> Tensor:
        with without_autocast(hidden):
            head = head_weight.to(hidden.dtype)
            grad_hidden = torch.empty_like(hidden)
            grad_head = torch.zeros(head.shape, dtype=sum_dtype(hidden.dtype), device=head.device)
            losses = []
            for rows in _chunks(hidden.shape[0], chunk_tokens):
                log_p = _log_softmax(hidden[rows], head, vocabulary)
                losses.append(_token_losses(log_p, labels[rows]))
                grad = _grad_logits(log_p, labels[rows]).to(hidden.dtype)
                torch.mm(grad, head, out=grad_hidden[rows])
                add_product(grad_head, grad.t(), hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_head)
        return torch.cat(losses).sum(dtype=torch.float64).to(grad_head.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden.mul_(grad), grad_head.mul_(grad), None, None, None


def _log_softmax(hidden: Tensor, head: Tensor, vocabulary: int) -> Tensor:
    """ln p [tokens, V] in fp32 (fp64 if all is); -inf in the rows of padding."""
    logits = (hidden @ head.t()).to(sum_dtype(hidden.dtype))
    logits[:, vocabulary:] = -torch.inf
    return torch.log_softmax(logits, -1)


def _token_losses(log_p: Tensor, labels: Tensor) -> Tensor:
    valid = labels != IGNORED
    picked = log_p.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
    return torch.where(valid, -picked, 0.0)


def _grad_logits(log_p: Tensor, labels: Tensor) -> Tensor:
    """softmax - onehot(label), 0 for tokens without label. Overwrites `log_p`."""
    grad = log_p.exp_()
    valid = (labels != IGNORED).unsqueeze(1)
    grad.scatter_add_(1, labels.clamp_min(0).unsqueeze(1), -valid.to(grad.dtype))
    return grad.mul_(valid)


def _chunks(length: int, chunk: int) -> Iterator[slice]:
    if chunk < 1:
        raise ValueError(f"chunk_tokens: {chunk}, but must be at least 1")
    return (slice(start, start + chunk) for start in range(0, length, chunk))
