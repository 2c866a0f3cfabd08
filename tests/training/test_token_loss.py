"""The chunked loss is torch's own, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training import token_loss
from training.token_loss import token_cross_entropy


def inputs(num_tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    hidden, weight, bias = (
        (3 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()
        for shape in ((num_tokens, 8), (50, 8), (50,))
    )
    return hidden, weight, bias, torch.randint(0, 50, (num_tokens,), generator=generator)


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 8, 23])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_equals_torch_in_value_and_gradient_across_chunks(
    num_tokens: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_loss, "_CHUNK_LOGITS", 400)  # eight tokens
    hidden, weight, bias, labels = inputs(num_tokens)
    wanted = (hidden, weight, bias) if with_bias else (hidden, weight)
    ours, each = token_cross_entropy(hidden, weight, bias if with_bias else None, labels)
    logits = F.linear(hidden, weight, bias if with_bias else None)
    theirs = F.cross_entropy(logits, labels, reduction="sum")
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(each, F.cross_entropy(logits, labels, reduction="none"), rtol=1e-5, atol=1e-5)
    assert not each.requires_grad
    # A factor, as gradients of micro-batches have.
    for one, other in zip(
        torch.autograd.grad(ours * 0.3, wanted), torch.autograd.grad(theirs * 0.3, wanted), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    hidden, weight, bias, labels = inputs(5, torch.float64)
    assert torch.autograd.gradcheck(lambda *x: token_cross_entropy(*x, labels)[0], (hidden, weight, bias))


def test_logits_beyond_the_range_of_exp_stay_finite() -> None:
    hidden, weight, bias, labels = inputs(5)
    loss, _ = token_cross_entropy(hidden * 1e3, weight, bias, labels)
    theirs = F.cross_entropy(F.linear(hidden * 1e3, weight, bias), labels, reduction="sum")
    assert torch.allclose(loss, theirs, rtol=1e-5)
    assert all(one.isfinite().all() for one in torch.autograd.grad(loss, (hidden, weight, bias)))


def test_half_precision_multiplies_in_it_and_sums_in_float32() -> None:
    hidden, weight, bias, labels = inputs(23)
    whole, _ = token_cross_entropy(hidden, weight, bias, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved, _ = token_cross_entropy(hidden, weight, bias, labels)
    assert halved.dtype == torch.float32
    assert halved != whole
    assert torch.allclose(halved, whole, rtol=0.02)
    for one, other in zip(
        torch.autograd.grad(halved, (hidden, weight, bias)),
        torch.autograd.grad(whole, (hidden, weight, bias)),
        strict=True,
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm()


def test_without_gradients_none_are_made() -> None:
    hidden, weight, bias, labels = inputs(5)
    with torch.no_grad():
        loss, _ = token_cross_entropy(hidden, weight, bias, labels)
    assert not loss.requires_grad
    assert torch.allclose(loss, token_cross_entropy(hidden, weight, bias, labels)[0])
