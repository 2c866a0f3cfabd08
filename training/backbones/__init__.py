"""Backbones: where a model and its tokenizer come from."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from catalog.registry import Registry
from training.tokenizer import TextTokenizer


class Backbone(Protocol):
    """Contract of a member: four functions of its config, none keeping state.

    A model maps ``(input_ids (B, T) int64, attention_mask (B, T) bool)`` to logits (B, num_classes). Weights that are
    drawn come from torch's current generator, which the caller forks and seeds.
    """

    def tokenizer(self, texts: Sequence[str], config: Any) -> TextTokenizer:
        """Train or load the tokenizer."""
        ...

    def build(self, *, vocab_size: int, num_classes: int, max_tokens: int, config: Any) -> nn.Module:
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
