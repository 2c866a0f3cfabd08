"""Backbones: where a model and its tokenizer come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from catalog.registry import Registry
from training.arm import ArmConfig
from training.attention import Order
from training.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """What an objective needs of a network.

    Parameters
    ----------
    num_classes : outputs of the classification head; 0 for none.
    tokens : whether a head over the vocabulary is needed, and with it the states of single tokens.
    states : whether the states of single tokens are needed.
    exits : whether heads behind earlier layers are trained, where a network has such.
    orders : orders of attention that the objective makes sense in.
    segment_tokens, memory_tokens : tokens of the segments that texts are read in, and of the memory before each; 0
        reads a text as a whole.
    """

    num_classes: int = 0
    tokens: bool = False
    states: bool = False
    exits: bool = False
    orders: frozenset[Order] = frozenset({"encoder", "causal", "prefix"})
    segment_tokens: int = 0
    memory_tokens: int = 0


class Backbone(Protocol):
    """Contract of a member: five functions of its config, none keeping state.

    A model maps ``(input_ids (B, T) int64, attention_mask (B, T) bool)`` to logits (B, num_classes). One with
    ``tokens`` or ``states`` is a ``training.model.Transformer``. Weights that are drawn come from
    torch's current generator, which the caller forks and seeds.
    """

    def tokenizer(self, texts: Sequence[str], config: Any) -> TextTokenizer:
        """Train or load the tokenizer."""
        ...

    def check(self, arm: ArmConfig, heads: Heads, config: Any) -> None:
        """Refuse what the network cannot do: heads, and what the arm asks of every network.

        Parameters
        ----------
        arm : its ``max_tokens``, ``packing``, ``recompute`` and ``compile``.

        Raises
        ------
        ConfigError : with the setting, what it would have to be, and the remedy.
        """
        ...

    def build(self, *, vocab_size: int, heads: Heads, max_tokens: int, config: Any) -> nn.Module:
        """Make the plain network with its starting weights."""
        ...

    def adapt(self, model: nn.Module, config: Any) -> nn.Module:
        """Prepare the network for training: freeze, add adapters. What requires a gradient afterwards is trained."""
        ...

    def merge(self, model: nn.Module) -> nn.Module:
        """Undo ``adapt`` after training: the plain network with the same outputs and nothing frozen."""
        ...


BACKBONES: Registry[Backbone] = Registry("backbone", "training.backbones")
"""Members are instances of classes that fulfil ``Backbone``."""
