"""Sparse mixture of experts: every token goes through the k experts its gate likes best.

Shapes: N tokens, C dim, E experts, K experts a token, H hidden units of an expert, S = N * K routed copies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.feedforward import FEEDFORWARD
from training.feedforward.blocked_experts import Routes, blocked_mixture

Balancing = Literal["loss", "bias"]
Biases = Literal["none", "own"]
_STRIDE_BYTES = 16
"""``grouped_mm`` refuses matrices whose rows are not a multiple of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeTopK:
    """Experts and their router.

    Parameters
    ----------
    num_experts : experts in the layer.
    top_k : experts that each token visits.
    hidden : hidden units of one expert; ``top_k * hidden`` is the hidden size of the dense layer of equal cost.
    balance_weight : weight of the load-balancing loss; 0 turns it off.
    z_weight : weight of the router's z-loss; 0 turns it off.
    balancing : ``bias`` adds to each expert's probability, for the choice alone, what the optimizer moves up while it
        gets less than its share and down while it gets more; besides the loss, if that has a weight.
    biases : ``own`` gives every expert the biases of linear layers.
    """

    num_experts: int = 8
    top_k: int = 2
    hidden: int = 256
    balance_weight: float = 0.01
    z_weight: float = 0.001
    balancing: Balancing = "loss"
    biases: Biases = "none"

    def __post_init__(self) -> None:
        for name in ("num_experts", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k={self.top_k} must lie in [1, num_experts={self.num_experts}]")
        for name in ("balance_weight", "z_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        for name, kind in (("balancing", Balancing), ("biases", Biases)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(kind))}")


class GroupedExperts(nn.Module):
    """All experts in two tensors: on a CPU one after the other, elsewhere by one grouped matrix product a layer.

    Falls back to a loop over experts where ``grouped_mm`` cannot run (an unaligned size, float64); all give the same
    numbers up to rounding.
    """

    def __init__(self, dim: int, num_experts: int, hidden: int, biases: Biases = "none") -> None:
        super().__init__()
        self.up_ECH = nn.Parameter(torch.empty(num_experts, dim, hidden))
        self.down_EHC = nn.Parameter(torch.empty(num_experts, hidden, dim))
        # The rule of nn.Linear: uniform within 1 / sqrt(fan in).
        nn.init.uniform_(self.up_ECH, -1 / math.sqrt(dim), 1 / math.sqrt(dim))
        nn.init.uniform_(self.down_EHC, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))
        own = biases == "own"
        self.up_bias_EH = nn.Parameter(torch.zeros(num_experts, hidden)) if own else None
        self.down_bias_EC = nn.Parameter(torch.zeros(num_experts, dim)) if own else None

    def forward(self, x_SC: Tensor, counts_E: Tensor) -> Tensor:
        """Apply expert e to its ``counts_E[e]`` rows; rows come sorted by expert."""
        multiply = grouped_product if _aligned(x_SC, self.up_ECH, self.down_EHC) else looped_product
        up_SH = _with_bias(multiply(x_SC, self.up_ECH, counts_E), self.up_bias_EH, counts_E)
        return _with_bias(multiply(F.gelu(up_SH), self.down_EHC, counts_E), self.down_bias_EC, counts_E)

    def goes_blocked(self, x_NC: Tensor) -> bool:
        """Whether ``blocked`` can take the tokens: on a CPU, in a type that it knows."""
        return x_NC.device.type == "cpu" and autocast_dtype(x_NC) in (torch.float32, torch.bfloat16)

    def blocked(self, x_NC: Tensor, routes: Routes) -> Tensor:
        """Each token's experts, weighted and summed, without a copy of all routed rows."""
        kind = autocast_dtype(x_NC)
        weights = (self.up_ECH.to(kind), self.down_EHC.to(kind))
        up_bias_EH, down_bias_EC = (
            None if one is None else one.to(kind) for one in (self.up_bias_EH, self.down_bias_EC)
        )
        with torch.autocast("cpu", enabled=False):
            return blocked_mixture(x_NC.to(kind), routes, weights, (up_bias_EH, down_bias_EC))

    def separated(self) -> "SeparateExperts":
        """The same experts as plain linear layers, which quantizers know how to convert."""
        return SeparateExperts(self.up_ECH.detach(), self.down_EHC.detach(), self.up_bias_EH, self.down_bias_EC)


class SeparateExperts(nn.Module):
    """Experts as pairs of linear layers, run one after the other."""

    def __init__(
        self, up_ECH: Tensor, down_EHC: Tensor, up_bias_EH: Tensor | None = None, down_bias_EC: Tensor | None = None
    ) -> None:
        super().__init__()
        self.up = _linears(up_ECH, up_bias_EH)
        self.down = _linears(down_EHC, down_bias_EC)

    def forward(self, x_SC: Tensor, counts_E: Tensor) -> Tensor:
        """Apply expert e to its ``counts_E[e]`` rows; rows come sorted by expert."""
        parts = torch.split(x_SC, counts_E.tolist())
        # An expert without tokens is skipped: quantized kernels refuse empty inputs.
        done = [down(F.gelu(up(part))) for part, up, down in zip(parts, self.up, self.down, strict=True) if len(part)]
        return torch.cat(done) if done else x_SC


class MoeFeedForward(nn.Module):
    """A gate in float32, the top-k experts of every token, no token dropped.

    Attributes
    ----------
    auxiliary_loss : what is added to the training loss.
    counts_E : (E,) int64, routed copies that each expert got in the last pass; empty before the first.
    num_copies : copies that its tokens asked for: tokens times ``top_k``.
    z : the z-loss of the last pass in training, before its weight; None before the first.
    group : processes whose tokens count as one batch in all of these while training; None where there are no others.
    """

    auxiliary_loss: Tensor
    counts_E: Tensor  # noqa: N815
    num_copies: int | Tensor
    z: Tensor | None
    group: "torch.distributed.ProcessGroup | None"

    def __init__(self, dim: int, config: MoeTopK) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Linear(dim, config.num_experts, bias=False)
        self.experts: nn.Module = GroupedExperts(dim, config.num_experts, config.hidden, config.biases)
        # A parameter, though no gradient of the loss reaches it: so that checkpoints and every optimizer know it.
        self.choice_bias_E = nn.Parameter(torch.zeros(config.num_experts)) if config.balancing == "bias" else None
        self.auxiliary_loss = torch.zeros(())
        self.counts_E = torch.zeros(0, dtype=torch.int64)
        self.num_copies = 0
        self.z = None
        self.group = None

    def train(self, mode: bool = True) -> "MoeFeedForward":  # noqa: FBT001, FBT002
        """Switch mode; leaving training forgets the last graph, so that the module can be copied and saved."""
        if not mode:
            self.auxiliary_loss = torch.zeros(())
        return super().train(mode)

    def forward(self, x_NC: Tensor) -> Tensor:
        """Mix the chosen experts' outputs by their renormalised gate probabilities."""
        with torch.autocast(x_NC.device.type, enabled=False):
            # bfloat16 logits tie and flip choices between nearly equal experts.
            logits_NE = F.linear(x_NC.float(), self.gate.weight.float())
        liked_NE = logits_NE.detach()
        if self.choice_bias_E is not None:
            liked_NE = liked_NE.softmax(-1) + self.choice_bias_E.detach()
        expert_NK = liked_NE.topk(self.config.top_k, dim=-1).indices
        # The chosen experts' share of all probability, without a graph through those that were not chosen.
        weight_NK = logits_NE.gather(-1, expert_NK).softmax(-1)
        expert_S, order_S = expert_NK.flatten().sort(stable=True)
        own_E = self.counts_E = torch.bincount(expert_S, minlength=self.config.num_experts)
        self.num_copies = expert_NK.numel()
        if self.training:
            self.auxiliary_loss = self._auxiliary(logits_NE)
        return self._mixture(x_NC, Routes(weight_NK=weight_NK, order_S=order_S, counts_E=own_E))

    def _mixture(self, x_NC: Tensor, routes: Routes) -> Tensor:
        if isinstance(self.experts, GroupedExperts) and self.experts.goes_blocked(x_NC):
            return self.experts.blocked(x_NC, routes)
        out_SC = self.experts(x_NC.index_select(0, routes.token_S), routes.counts_E)
        weighted_SC = out_SC * routes.weight_NK.flatten()[routes.order_S, None].to(out_SC.dtype)
        # Back to token order, then summed over a token's k copies: index_add would sum in no fixed order on a GPU.
        place_NK = routes.place_NK
        mixed_NC: Tensor = weighted_SC.index_select(0, place_NK.flatten()).view(*place_NK.shape, -1).sum(1)
        return mixed_NC

    def _auxiliary(self, logits_NE: Tensor) -> Tensor:
        """Load balancing (Fedus et al. 2021, equation 4, over top-k) plus z-loss (Zoph et al. 2022, equation 5)."""
        z = (logits_NE if self.config.z_weight else logits_NE.detach()).logsumexp(-1).square().mean()
        self.z = z.detach()
        share = None if self.group is None else self._share_of_all(self.group, len(logits_NE) * self.config.top_k)
        total = self.config.z_weight * z
        if self.config.balance_weight:
            load_E = self.counts_E / self.counts_E.sum().clamp(min=1)
            balance = self.config.num_experts * (load_E * logits_NE.softmax(-1).mean(0)).sum()
            total = total + self.config.balance_weight * balance
        if share is not None:
            total = total * share
        if self.choice_bias_E is None:
            return total
        # Adds nothing to the loss and the sign of the load's error to the bias's gradient (Wang et al. 2024, algorithm
        # 1), which AdamW turns into steps of the learning rate; small, so that clipping by the norm does not see it.
        error_E = (self.counts_E - self.counts_E.float().mean()).sign()
        return total + 1e-3 * ((self.choice_bias_E - self.choice_bias_E.detach()) * error_E).sum()

    def _share_of_all(self, group: "torch.distributed.ProcessGroup", own: int) -> Tensor:
        """Make the statistics those of all processes; return by what a mean over this one's tokens has to be weighed
        for the processes' mean to be that over all tokens.
        """
        assert self.z is not None
        sums = torch.cat([self.counts_E.double(), (self.z.double() * own)[None], self.z.new_full((1,), own).double()])
        torch.distributed.all_reduce(sums, group=group)
        self.counts_E, self.num_copies = sums[:-2].long(), sums[-1]
        self.z = (sums[-2] / sums[-1]).to(self.z.dtype)
        return (own * torch.distributed.get_world_size(group) / sums[-1]).to(self.z.dtype)


@FEEDFORWARD.register("moe_topk", MoeTopK)
def moe_topk(dim: int, config: MoeTopK) -> nn.Module:
    """Dropless top-k mixture of experts (Shazeer et al. 2017, section 2.1; dropless as in Gale et al. 2022)."""
    return MoeFeedForward(dim, config)


class _ContiguousGradient(torch.autograd.Function):
    """Identity whose gradient is made contiguous: ``grouped_mm`` refuses an expanded one, such as ``.sum()`` sends."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0].contiguous()


_contiguous_gradient: Callable[[Tensor], Tensor] = _ContiguousGradient.apply


def grouped_product(x_SA: Tensor, weight_EAB: Tensor, counts_E: Tensor) -> Tensor:
    """Rows times their expert's matrix, in one call; rows come sorted by expert."""
    kind = autocast_dtype(x_SA)
    ends_E = counts_E.cumsum(0).to(torch.int32)
    product = F.grouped_mm(x_SA.to(kind), weight_EAB.to(kind), offs=ends_E)
    return _contiguous_gradient(product)


def looped_product(x_SA: Tensor, weight_EAB: Tensor, counts_E: Tensor) -> Tensor:
    """The same product, expert by expert."""
    parts = torch.split(x_SA, counts_E.tolist())
    return torch.cat([part @ weight for part, weight in zip(parts, weight_EAB, strict=True)])


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast would compute in; ``grouped_mm`` is not on its list."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _aligned(x_SC: Tensor, *weights: Tensor) -> bool:
    kind = autocast_dtype(x_SC)
    sizes = {size for weight in weights for size in weight.shape[1:]}
    return kind in (torch.float32, torch.bfloat16) and all(size * kind.itemsize % _STRIDE_BYTES == 0 for size in sizes)


def _with_bias(x_SA: Tensor, bias_EA: Tensor | None, counts_E: Tensor) -> Tensor:
    """Rows plus their expert's bias."""
    return x_SA if bias_EA is None else x_SA + bias_EA.to(x_SA.dtype).repeat_interleave(counts_E, dim=0)


def _linears(weight_EAB: Tensor, bias_EB: Tensor | None) -> nn.ModuleList:
    biases = [None] * len(weight_EAB) if bias_EB is None else list(bias_EB.detach())
    return nn.ModuleList(_linear(weight, bias) for weight, bias in zip(weight_EAB, biases, strict=True))


def _linear(weight_AB: Tensor, bias_B: Tensor | None) -> nn.Linear:
    num_inputs, num_outputs = weight_AB.shape
    layer = nn.Linear(num_inputs, num_outputs, bias=bias_B is not None, device="meta")
    layer.weight = nn.Parameter(weight_AB.T.contiguous())
    if bias_B is not None:
        layer.bias = nn.Parameter(bias_B.clone())
    return layer
