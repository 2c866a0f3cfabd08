"""Feed-forward layers: what follows attention in every block."""

from collections.abc import Callable
from typing import Any

from torch import nn

from catalog.registry import Registry

FEEDFORWARD: Registry[Callable[[int, Any], nn.Module]] = Registry("feed-forward", "training.feedforward")
"""Contract: ``(dim, config) -> nn.Module`` mapping x_NC (tokens, dim) to out_NC, padding already removed, each token
independent of its neighbours. A module with an ``auxiliary_loss`` attribute (scalar, already weighted) has it added to
the training loss; it holds the last training forward's value and a constant zero in evaluation mode."""
