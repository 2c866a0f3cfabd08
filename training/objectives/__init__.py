"""Objectives: what a model is trained to do."""

from collections.abc import Callable

from torch import Tensor

from catalog.registry import Registry

IGNORED = -100
"""The label of a position that has none."""

OBJECTIVES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("objective", "training.objectives")
"""Contract: ``(logits, labels) -> scalar``, the mean over the labels that are not -100, and 0 when all are: so that the
means of micro-batches, weighted by their unignored counts, add up to the mean of the whole batch."""
