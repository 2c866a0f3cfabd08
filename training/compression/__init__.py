"""Compressions: a smaller copy of a trained model."""

from collections.abc import Callable

from torch import nn

from catalog.registry import Registry

COMPRESSION: Registry[Callable[[nn.Module], nn.Module]] = Registry("compression", "training.compression")
"""Contract: ``(model) -> model``: a copy in evaluation mode with the same inputs; the given model is not changed."""
