"""Starting from a model that was trained before: its vocabulary and every weight but those of heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.tokenizer import TextTokenizer

_HEADS = ("head.", "exits.", "vocab_")
"""What belongs to what a model was trained for; taken over where the shapes are the same."""


@dataclass(frozen=True)
class Initial:
    """A trained network's weights by name, and its tokenizer."""

    weights: dict[str, Tensor]
    tokenizer: TextTokenizer


def take_over(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put the weights of a trained network in the place of drawn ones.

    Parameters
    ----------
    model : changed in place. Heads of another shape, and such as the trained network lacks, stay as they were drawn.
    weights : by name.

    Raises
    ------
    ConfigError : the two differ in more than heads; with the first weight that does.
    """
    own = model.state_dict()
    with torch.no_grad():
        for name, mine in own.items():
            theirs = weights.get(name)
            if theirs is not None and theirs.shape == mine.shape:
                mine.copy_(theirs)
            elif theirs is not None and name == "tokens.weight" and theirs.shape[1] == mine.shape[1]:
                # The objective may add special tokens, behind those there were.
                mine[: len(theirs)].copy_(theirs)
            elif not name.startswith(_HEADS):
                there = "not there" if theirs is None else f"of shape {tuple(theirs.shape)}"
                raise ConfigError(
                    f"init_from: weight {name} is of shape {tuple(mine.shape)} in this arm and {there} in the trained "
                    "model; give backbone, backbone_options and max_tokens as it was trained with"
                )
    unused = sorted(name for name in weights if name not in own and not name.startswith(_HEADS))
    if unused:
        raise ConfigError(
            f"init_from: weight {unused[0]} (and {len(unused) - 1} more) of the trained model has no place in this "
            "arm; give backbone, backbone_options and max_tokens as it was trained with"
        )
