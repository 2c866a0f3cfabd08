"""A trained dense network as the start of one with experts, and how experts share their work."""

import dataclasses
import math
from typing import Any, cast

import torch
from torch import nn

from training.feedforward.dense import Dense
from training.feedforward.moe_topk import GroupedExperts, MoeFeedForward
from training.model import Transformer


def upcycled(dense: Transformer, *, num_experts: int, top_k: int, **options: Any) -> Transformer:
    """A network whose experts all start as the dense network's feed-forward (Komatsuzaki et al. 2022, section 3).

    It computes what the dense one does until it is trained further: gates are drawn anew, and weights of the chosen
    experts add up to one.

    Parameters
    ----------
    dense : with the feed-forward ``dense``; it is not changed.
    num_experts, top_k, options : of ``moe_topk``; ``hidden`` and ``biases`` are the dense network's.

    Raises
    ------
    ValueError : the network is not dense.
    ConfigError : an unknown option, or a value out of range.
    """
    if dense.config.feedforward != "dense":
        raise ValueError(f"feedforward={dense.config.feedforward!r} cannot be upcycled; only 'dense' can")
    given = dense.config.feedforward_options
    hidden = Dense(**given).hidden
    config = dataclasses.replace(
        dense.config,
        feedforward="moe_topk",
        feedforward_options=options | {"num_experts": num_experts, "top_k": top_k, "hidden": hidden, "biases": "own"},
    )
    model = Transformer(config).to(dense.head.weight if config.num_classes else dense.tokens.weight)
    weights = {name: one for name, one in dense.state_dict().items() if ".feedforward." not in name}
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for old, new in zip(dense.blocks, model.blocks, strict=True):
            up, _, down = cast("tuple[nn.Linear, nn.GELU, nn.Linear]", tuple(cast("nn.Sequential", old.feedforward)))
            experts = cast("GroupedExperts", cast("MoeFeedForward", new.feedforward).experts)
            assert experts.up_bias_EH is not None
            assert experts.down_bias_EC is not None
            experts.up_ECH.copy_(up.weight.T)
            experts.down_EHC.copy_(down.weight.T)
            experts.up_bias_EH.copy_(up.bias)
            experts.down_bias_EC.copy_(down.bias)
    return model


def router_statistics(model: nn.Module) -> dict[str, float]:
    """How evenly experts were used in the last pass, by layer and number.

    Returns
    -------
    For every layer of experts, by its name: ``NAME/max_load`` (tokens of the busiest expert over the mean, 1 is even),
    ``NAME/idle`` (share of experts without a token), ``NAME/entropy`` (of the load, over its largest value: 1 is even,
    0 a single expert), ``NAME/dropped`` (share of routed copies that no expert got) and, after a pass in training,
    ``NAME/z`` (mean squared log-sum of the gate's exponentials, before its weight). Empty before the first pass, and
    without experts.
    """
    found: dict[str, float] = {}
    for name, part in model.named_modules():
        if isinstance(part, MoeFeedForward) and len(part.counts_E):
            counts_E = part.counts_E.double()
            load_E = counts_E / counts_E.sum().clamp(min=1)
            largest = math.log(max(len(load_E), 2))
            found[f"{name}/max_load"] = float(counts_E.max() / counts_E.mean().clamp(min=1e-9))
            found[f"{name}/idle"] = float((counts_E == 0).double().mean())
            found[f"{name}/entropy"] = float(torch.special.entr(load_E).sum()) / largest
            found[f"{name}/dropped"] = 1 - float(counts_E.sum()) / max(part.num_copies, 1)
            if part.z is not None:
                found[f"{name}/z"] = float(part.z)
    return found
