"""The loss over a vocabulary, without ever holding the logits of all tokens.

Logits of a chunk of tokens are made, turned into their own gradient in place, and used for both products of the
backward pass at once: so memory goes with the chunk, and the softmax is walked over while it is still in the cache.

Shapes: N tokens, C dim, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_LOGITS = 2**20
"""Logits of a chunk: 4 MiB of float32. Half and double of it were as fast on a CPU; a quarter was slower, as every
chunk adds to the whole gradient of the weights."""


def token_cross_entropy(
    hidden_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None, labels_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy of ``hidden @ weight.T + bias`` and the labels, in nats: the sum over tokens, and each one's.

    Equals ``F.cross_entropy(F.linear(hidden, weight, bias), labels)`` reduced by sum, in whose place it stands.

    Parameters
    ----------
    hidden_NC : (N, C) float, of the tokens that have a label alone.
    weight_VC, bias_V : (V, C) and (V,) float, or no bias.
    labels_N : (N,) int64 in [0, V).

    Returns
    -------
    Scalar float32 (float64 of float64), 0 of no tokens, which can be differentiated once; and (N,) without gradient.

    References
    ----------
    Hsu et al. (2024), Liger Kernel, section 3.2, which does it in one GPU kernel; here they are torch's products.
    """
    total, each_N = _TokenLoss.apply(hidden_NC, weight_VC, bias_V, labels_N)  # type: ignore[no-untyped-call]
    return total, each_N


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        wanted = any(ctx.needs_input_grad)
        size = max(1, _CHUNK_LOGITS // weight.shape[0])
        hidden_cast, weight_cast = hidden.to(dtype), weight.to(dtype)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=exact)
        d_bias = torch.zeros(weight.shape[0], dtype=exact, device=hidden.device)
        each = torch.empty(len(labels), dtype=exact, device=hidden.device)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(labels), size):
                part = slice(start, start + size)
                logits = F.linear(hidden_cast[part], weight_cast).to(exact)
                if bias is not None:
                    logits += bias
                at = labels[part, None]
                label_logit = logits.gather(1, at)
                highest = logits.amax(1, keepdim=True)
                normaliser = logits.sub_(highest).exp_().sum(1, keepdim=True)
                each[part] = (normaliser.log() - (label_logit - highest)).squeeze(1)
                if not wanted:
                    continue
                # From here on the logits are their own gradient: probabilities, less 1 at the label.
                logits.div_(normaliser).scatter_add_(1, at, logits.new_full(at.shape, -1.0))
                d_bias += logits.sum(0)
                slope = logits.to(dtype)
                d_hidden[part] = slope @ weight_cast
                if dtype == exact:
                    d_weight.addmm_(slope.t(), hidden_cast[part])
                else:
                    d_weight += slope.t() @ hidden_cast[part]
        if wanted:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype), None if bias is None else d_bias.to(bias.dtype))
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, d_each: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        return (*(None if one is None else one * d_total.to(one.dtype) for one in ctx.saved_tensors), None)
