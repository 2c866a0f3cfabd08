"""Retrieval: a network that reads a memory beside its weights, and another memory without being trained again."""

from collections.abc import Callable
from typing import Any

from torch import nn

from catalog.registry import Registry
from training.retrieval.memory import MemoryReader

RETRIEVAL: Registry[Callable[[nn.Module, Any], MemoryReader]] = Registry("retrieval", "training.retrieval")
"""Contract: ``(model, config) -> MemoryReader``, a module around ``model``, whose weights it never changes by reading.
``use`` gives it a memory or takes it away. It maps (input_ids (B, T), attention_mask (B, T)) to logarithms of
probabilities; without a memory, or with an empty one, to those of the model itself, bit for bit."""
