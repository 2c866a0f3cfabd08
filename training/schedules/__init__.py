"""Schedules: the learning rate's share of its peak at a step."""

from collections.abc import Callable
from typing import Any

from catalog.registry import Registry

SCHEDULES: Registry[Callable[[int, int, Any], float]] = Registry("schedule", "training.schedules")
"""Contract: ``(step, total_steps, config) -> multiplier`` of the peak learning rate, in [0, 1], for the update that
follows ``step`` finished ones (so the first call has step 0). It must be above 0 at some step."""
