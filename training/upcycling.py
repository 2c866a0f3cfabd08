"""A trained dense network as the start of one with experts, and how experts share their work."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.feedforward.dense import Dense
from training.feedforward.moe_topk import MoeFeedForward, MoeTopK
from training.model import Transformer

_EXPERTS = {"0.weight": "up_ECH", "0.bias": "up_bias_EH", "2.weight": "down_EHC", "2.bias": "down_bias_EC"}
"""Weights of the dense layer, and what they become. Linear layers keep theirs the other way round."""


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
    model.load_state_dict(upcycled_weights(dense.state_dict(), model), strict=False)
    return model


def upcycled_weights(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A dense network's weights under the names of one with experts, each of which gets the whole layer.

    Parameters
    ----------
    weights : by name; they are not changed.
    model : with experts in place of the dense layers, as wide and with biases of their own. Its gates stay as drawn.
    """
    found = {name: one for name, one in weights.items() if ".feedforward." not in name}
    for name, part in model.named_modules():
        if isinstance(part, MoeFeedForward):
            found |= part.state_dict(prefix=f"{name}.")
            for theirs, mine in _EXPERTS.items():
                one = weights[f"{name}.{theirs}"]
                one = one.T if one.dim() == 2 else one
                found[f"{name}.experts.{mine}"] = one.expand(part.config.num_experts, *one.shape)
    return found


def check_upcycling(dense: Mapping[str, Any], experts: Mapping[str, Any]) -> None:
    """Refuse experts that a dense layer's weights do not fill.

    Parameters
    ----------
    dense, experts : options of ``dense`` and of ``moe_topk``.

    Raises
    ------
    ConfigError : they are wider or narrower, or have no biases of their own; with the setting and its value.
    """
    hidden, config = Dense(**dense).hidden, MoeTopK(**experts)
    for name, mine, needed in (("hidden", config.hidden, hidden), ("biases", config.biases, "own")):
        if mine != needed:
            raise ConfigError(
                f"{name}={mine!r} of moe_topk must be {needed!r}, since each expert starts as the dense layer of the "
                "trained model; set it so in feedforward_options"
            )


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
            found[f"{name}/dropped"] = 1 - float(counts_E.sum()) / max(float(part.num_copies), 1)
            if part.z is not None:
                found[f"{name}/z"] = float(part.z)
    return found
