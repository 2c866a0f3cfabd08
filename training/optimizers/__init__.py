"""Optimizers: how a gradient changes the weights."""

from collections.abc import Callable
from typing import Any

import torch

from catalog.registry import Registry

OPTIMIZERS: Registry[Callable[[list[dict[str, Any]], float, Any], torch.optim.Optimizer]] = Registry(
    "optimizer", "training.optimizers"
)
"""Contract: ``(groups, learning_rate, config) -> torch.optim.Optimizer`` over groups of ``params`` with their
``weight_decay``; the trainer sets ``lr`` of every group before each step. Its state follows from the gradients alone,
and ``state_dict`` holds all of it, so that a resumed run goes on to the same bits. A config whose ``needs_whole`` is
True says that parts of weights (``fsdp2``) will not do."""
