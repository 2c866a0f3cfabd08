"""Experts on a CPU, one after the other: an expert's rows are gathered and go through both layers while they are in the
cache; the hidden layer, before and after its GELU, is all that is kept of them for the backward pass.

Shapes as in ``moe_topk``: N tokens, C dim, E experts, K experts a token, H hidden units, S = N * K routed copies.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

_GAP = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Routes:
    """Which token goes where.

    Parameters
    ----------
    weight_NK : (N, K) float32, how much each of a token's experts counts.
    order_S : (S,) int64, routed copies sorted by expert, as places in the flattened (N, K).
    counts_E : (E,) int64, copies that each expert gets.
    """

    weight_NK: Tensor  # noqa: N815
    order_S: Tensor  # noqa: N815
    counts_E: Tensor  # noqa: N815

    @property
    def token_S(self) -> Tensor:  # noqa: N802
        """(S,) int64, the token of each copy."""
        return self.order_S // self.weight_NK.shape[1]

    @property
    def place_NK(self) -> Tensor:  # noqa: N802
        """(N, K) int64, where a token's copies stand among the sorted ones."""
        places = torch.arange(len(self.order_S), device=self.order_S.device)
        return torch.empty_like(self.order_S).scatter_(0, self.order_S, places).view_as(self.weight_NK)


def blocked_mixture(
    x_NC: Tensor,
    routes: Routes,
    weights: tuple[Tensor, Tensor],
    biases: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """Weighted sum of each token's experts, a two-layer network with GELU each; differentiable once.

    Parameters
    ----------
    x_NC : (N, C) float32 or bfloat16 on a CPU.
    routes : who goes where.
    weights, biases : of the two layers, (E, C, H) and (E, H, C), (E, H) and (E, C); of the type of ``x_NC``.
    """
    return _mixture(x_NC, routes.weight_NK, *weights, *biases, routes)


class _BlockedMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NC: Tensor,
        weight_NK: Tensor,
        up_ECH: Tensor,
        down_EHC: Tensor,
        up_bias_EH: Tensor | None,
        down_bias_EC: Tensor | None,
        routes: Routes,
    ) -> Tensor:
        token_S, place_NK, counts = routes.token_S, routes.place_NK, routes.counts_E.tolist()
        hidden_SH = _with_gaps(x_NC, len(token_S), up_ECH.shape[2])
        active_SH = x_NC.new_empty(hidden_SH.shape)
        out_SC = x_NC.new_empty(len(token_S), x_NC.shape[1])
        x_buffer = x_NC.new_empty(max(counts), x_NC.shape[1])
        for expert, rows in _blocks(counts):
            hidden, active, out = hidden_SH[rows], active_SH[rows], out_SC[rows]
            x = torch.index_select(x_NC, 0, token_S[rows], out=x_buffer[: len(out)])
            torch.mm(x, up_ECH[expert], out=hidden)
            if up_bias_EH is not None:
                hidden += up_bias_EH[expert]
            torch.ops.aten.gelu.out(hidden, out=active)
            torch.mm(active, down_EHC[expert], out=out)
            if down_bias_EC is not None:
                out += down_bias_EC[expert]
        learned = (up_ECH, down_EHC, up_bias_EH, down_bias_EC)
        ctx.save_for_backward(x_NC, weight_NK, *learned, hidden_SH, active_SH, routes.order_S, token_S, place_NK)
        ctx.counts = counts
        return _summed(out_SC, place_NK, weight_NK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NC: Tensor) -> tuple[Tensor | None, ...]:
        x_NC, weight_NK, *learned, hidden_SH, active_SH, order_S, token_S, place_NK = ctx.saved_tensors
        up_ECH, down_EHC, _, down_bias_EC = learned
        gradient_NC = gradient_NC.contiguous()
        weight_S = weight_NK.flatten()[order_S].to(x_NC.dtype)
        x_gradient_SC = x_NC.new_empty(len(token_S), x_NC.shape[1])
        weight_gradient_S = torch.empty_like(weight_S)
        up_gradient, down_gradient, up_bias_gradient, down_bias_gradient = gradients = [
            torch.zeros_like(one) if needed else None
            for one, needed in zip(learned, ctx.needs_input_grad[2:6], strict=True)
        ]
        most = max(ctx.counts)
        x_buffer, gradient_buffer = x_NC.new_empty(2, most, x_NC.shape[1]).unbind()
        back_buffer = x_NC.new_empty(most, up_ECH.shape[2])
        for expert, rows in _blocks(ctx.counts):
            token_R, weight_R, active, count = token_S[rows], weight_S[rows], active_SH[rows], rows.stop - rows.start
            gradient = torch.index_select(gradient_NC, 0, token_R, out=gradient_buffer[:count])
            # Weighted before it goes back, so that neither the hidden layer nor its gradient has to be.
            gradient *= weight_R[:, None]
            back = torch.mm(gradient, down_EHC[expert].T, out=back_buffer[:count])
            # The weight scales the expert's output: its gradient is that output times the mixture's gradient.
            torch.linalg.vecdot(back, active, out=weight_gradient_S[rows])
            if down_bias_EC is not None:
                weight_gradient_S[rows] += gradient @ down_bias_EC[expert]
            if down_gradient is not None:
                torch.mm(active.T, gradient, out=down_gradient[expert])
            if down_bias_gradient is not None:
                torch.sum(gradient, 0, out=down_bias_gradient[expert])
            torch.ops.aten.gelu_backward.grad_input(back, hidden_SH[rows], grad_input=back)
            if up_gradient is not None:
                x = torch.index_select(x_NC, 0, token_R, out=x_buffer[:count])
                torch.mm(x.T, back, out=up_gradient[expert])
            if up_bias_gradient is not None:
                torch.sum(back, 0, out=up_bias_gradient[expert])
            torch.mm(back, up_ECH[expert].T, out=x_gradient_SC[rows])
        # What came back had the weight in it already; of a weight of 0 nothing came, nor goes on through the softmax.
        weight_gradient_S /= weight_S.clamp(min=torch.finfo(torch.float32).tiny)
        weight_gradient_NK = weight_gradient_S[place_NK].to(weight_NK.dtype)
        return _summed(x_gradient_SC, place_NK), weight_gradient_NK, *gradients, None


_mixture: Callable[..., Tensor] = _BlockedMixture.apply


def _with_gaps(x_NC: Tensor, num_rows: int, size: int) -> Tensor:
    """(num_rows, size), apart by ``_GAP`` numbers, so that torch's own GELU takes it: oneDNN's, which takes tensors
    without gaps, compiles itself anew for every number of rows that it has not met, and experts' numbers never repeat.
    """
    return x_NC.new_empty(num_rows, size + _GAP)[:, :size]


def _blocks(counts: list[int]) -> Iterator[tuple[int, slice]]:
    """Each expert that has rows, and where they stand."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
        start += count


def _summed(rows_SC: Tensor, place_NK: Tensor, weight_NK: Tensor | None = None) -> Tensor:
    """The rows of each token summed, in one pass over them."""
    weights = None if weight_NK is None else weight_NK.to(rows_SC.dtype)
    return F.embedding_bag(place_NK, rows_SC, mode="sum", per_sample_weights=weights)
