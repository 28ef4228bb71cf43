"""The fused loss against dense cross-entropy in fp64, and against the memory that it must not take."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from allocations import Allocations
from ring_worker.loss import IGNORED, chunked_cross_entropy, token_losses

torch.set_num_threads(1)


def problem(tokens, vocabulary=70, rows=128, width=16, dtype=torch.float64, seed=0):
    """Hidden states, head (with poison in the rows of padding) and labels, a third of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    head[vocabulary:] = 1e3
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    labels[torch.rand(tokens, generator=generator) < 0.33] = IGNORED
    return hidden, head.to(dtype).requires_grad_(), labels


def dense(hidden, head, labels, vocabulary):
    """(loss, gradient of hidden, gradient of head) in fp64 over the same numbers."""
    hidden, head = (x.detach().double().requires_grad_() for x in (hidden, head))
    loss = cross_entropy(hidden @ head[:vocabulary].t(), labels, ignore_index=IGNORED, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, (hidden, head))


@settings(deadline=None, max_examples=40)
@given(tokens=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 1000))
def test_any_chunk_gives_the_dense_loss_and_gradients(tokens, chunk, seed):
    hidden, head, labels = problem(tokens, seed=seed)
    loss, count = chunked_cross_entropy(hidden, head, labels, chunk, 70)
    wanted = dense(hidden, head, labels, 70)
    got = (loss.detach(), *torch.autograd.grad(loss, (hidden, head)))
    assert count == (labels != IGNORED).sum()
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_coarser_inputs_are_as_near_as_their_rounding(dtype, tolerance):
    hidden, head, labels = problem(300, dtype=dtype)
    loss, _ = chunked_cross_entropy(hidden, head, labels, 64, 70)
    grads = torch.autograd.grad(loss / 7, (hidden, head))
    wanted, *wanted_grads = dense(hidden, head, labels, 70)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=tolerance)
    for mine, theirs in zip(grads, wanted_grads, strict=True):
        assert mine.dtype == dtype
        assert (mine - theirs / 7).norm() <= tolerance * (theirs / 7).norm()


def test_the_heads_gradient_is_summed_in_fp32_over_bf16_chunks():
    """512 equal chunks: a sum in bf16 would stop growing at 256 times its first part."""
    hidden, head, labels = problem(8, dtype=torch.bfloat16)
    master = head.detach().float().requires_grad_()
    for repeats in (1, 512):
        loss, _ = chunked_cross_entropy(hidden.repeat(repeats, 1), master, labels.repeat(repeats), 8, 70)
        grad = torch.autograd.grad(loss, master)[0] / repeats
        if repeats == 1:
            first = grad
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad, first, rtol=1e-5, atol=1e-7)


def test_under_autocast_hidden_decides_the_dtype():
    hidden, head, labels = problem(30, dtype=torch.float32)
    plain = chunked_cross_entropy(hidden, head, labels, 8, 70)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = chunked_cross_entropy(hidden, head, labels, 8, 70)[0]
    assert cast == plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rank_without_labels_adds_exactly_nothing(dtype):
    hidden, head, labels = problem(20, dtype=dtype)
    loss, count = chunked_cross_entropy(hidden, head, torch.full_like(labels, IGNORED), 8, 70)
    grads = torch.autograd.grad(loss, (hidden, head))
    assert (loss.item(), count.item()) == (0.0, 0)
    assert all((grad == 0).all() for grad in grads)


def test_rows_of_padding_have_no_part():
    hidden, head, labels = problem(20)
    loss, _ = chunked_cross_entropy(hidden, head, labels, 8, 70)
    grad = torch.autograd.grad(loss, head)[0]
    assert (grad[70:] == 0).all()
    assert (grad[:70] != 0).all()


def test_losses_of_single_tokens_are_those_of_the_sum():
    hidden, head, labels = problem(33, dtype=torch.float32)
    losses = token_losses(hidden, head, labels, 7, 70)
    wanted = cross_entropy(hidden @ head[:70].t(), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-6)
    assert not losses.requires_grad
    assert losses.sum().item() == pytest.approx(chunked_cross_entropy(hidden, head, labels, 7, 70)[0].item(), rel=1e-6)


def test_no_tensor_of_tokens_times_vocabulary_is_ever_there():
    tokens, rows, chunk = 2048, 512, 96
    hidden, head, labels = problem(tokens, vocabulary=500, rows=rows, dtype=torch.float32)
    with Allocations() as seen:
        chunked_cross_entropy(hidden, head, labels, chunk, 500)[0].backward()
        token_losses(hidden, head, labels, chunk, 500)
    assert seen.largest == chunk * rows  # one chunk's logits, more than the hidden states and the head


def test_a_second_backward_pass_is_refused_not_wrong():
    hidden, head, labels = problem(10)
    loss, _ = chunked_cross_entropy(hidden, head, labels, 8, 70)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        (2 * loss).backward()


def test_a_chunk_of_no_tokens_is_refused():
    hidden, head, labels = problem(4)
    with pytest.raises(ValueError, match="chunk_tokens: 0"):
        chunked_cross_entropy(hidden, head, labels, 0, 70)
