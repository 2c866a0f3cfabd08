"""Pacings: how much of the manifest the stream may draw from, and from which end, as training goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from catalog.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The part of the manifest that a step draws from.

    Parameters
    ----------
    fraction : share of the records that are available, in (0, 1].
    first : which records become available first: the ``easiest``, the ``hardest``, or ``any`` (a seeded shuffle).
    """

    fraction: float
    first: Literal["easiest", "hardest", "any"] = "easiest"


PACING: Registry[Callable[[float, Any], Pool]] = Registry("pacing", "training.pacing")
"""Contract: ``(progress, config) -> Pool``. ``progress`` is step / total steps in [0, 1]; the fraction lies in (0, 1]
and never shrinks as progress grows. Nothing else may influence the answer: the order of records is replayed from it."""
