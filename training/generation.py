"""Continuing texts, with or without a cache of keys and values.

Shapes: B records, T tokens of the prompt, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from training.caches import CACHES, KeyValueCache
from training.model import Transformer


@torch.no_grad()
def generate(
    model: Transformer,
    input_ids: Tensor,
    num_new_tokens: int,
    *,
    cache: str = "full",
    cache_options: dict[str, Any] | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    generator: torch.Generator | None = None,
    on_caches: Callable[[list[KeyValueCache]], None] = lambda caches: None,  # noqa: ARG005
) -> Tensor:
    """Continue prompts of one length.

    Parameters
    ----------
    model : in evaluation mode, causal or prefix, with a token head. In order ``prefix`` the prompt is the prefix.
    input_ids : (B, T) int64, T at least 1, no padding.
    num_new_tokens : tokens to add to each.
    cache, cache_options : a registered cache and its options; ``none`` computes all tokens anew for each new one.
    temperature : 0 takes the likeliest token, else tokens are drawn from the softmax of logits / temperature.
    top_k : draw from this many likeliest tokens alone; 0 from all.
    generator : of the draws; None takes torch's own.
    on_caches : told the caches, one a layer, once they are full.

    Returns
    -------
    (B, T + num_new_tokens) int64.

    Raises
    ------
    ValueError : an encoder, a cache that does not stand for the model's attention, too many tokens, or a number out of
        range.
    ConfigError, NotFoundError : an unknown cache or option.
    """
    if num_new_tokens < 1 or input_ids.shape[1] < 1:
        raise ValueError(
            f"num_new_tokens={num_new_tokens} and {input_ids.shape[1]} tokens of prompt must be at least 1"
        )
    if not temperature >= 0 or top_k < 0:
        raise ValueError(f"temperature={temperature} and top_k={top_k} must be 0 or more")
    if top_k and not temperature:
        raise ValueError(f"top_k={top_k} has no effect with temperature=0; raise the temperature")

    def chosen(state_BC: Tensor) -> Tensor:
        return _chosen(model.token_logits(state_BC).float(), temperature, top_k, generator)[:, None]

    tokens = input_ids
    if cache == "none":
        if model.config.order == "encoder":
            raise ValueError("order='encoder' cannot continue a text; use order 'causal' or 'prefix'")
        for _ in range(num_new_tokens):
            real = torch.ones_like(tokens, dtype=torch.bool)
            prefix = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) < input_ids.shape[1]
            states = model.hidden(tokens, real, prefix=prefix if model.config.order == "prefix" else None)
            tokens = torch.cat([tokens, chosen(states[:, -1])], 1)
        return tokens
    registered = CACHES[cache]
    options = registered.configured(cache_options)
    caches = [registered.member(options) for _ in range(model.config.num_layers)]
    state = _taken_in(model, input_ids, caches)
    for number in range(num_new_tokens):
        tokens = torch.cat([tokens, chosen(state)], 1)
        if number < num_new_tokens - 1:
            state = model.extend(tokens[:, -1:], caches)[:, -1]
    on_caches(caches)
    return tokens


def _taken_in(model: Transformer, input_ids: Tensor, caches: list[KeyValueCache]) -> Tensor:
    """State (B, C) of the prompt's last token: all at once, or singly what no longer fits a cache that asks for it."""
    at_once = min(input_ids.shape[1], caches[0].capacity) if caches[0].one_by_one else input_ids.shape[1]
    state = model.extend(input_ids[:, :at_once], caches)[:, -1]
    for place in range(at_once, input_ids.shape[1]):
        state = model.extend(input_ids[:, place : place + 1], caches)[:, -1]
    return state


def _chosen(logits_BV: Tensor, temperature: float, top_k: int, generator: torch.Generator | None) -> Tensor:
    if not temperature:
        return logits_BV.argmax(-1)
    if top_k:
        lowest_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)[:, 0]
