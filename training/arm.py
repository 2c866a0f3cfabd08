"""An arm: one model trained in one order, and everything that fixes its weights besides the data."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Precision = Literal["auto", "float32", "bfloat16"]
Packing = Literal["none", "rows"]

_ADDED: dict[str, Any] = {"length_window": 1, "packing": "none", "objective_options": {}, "init_from": ""}
"""Settings that came later, with how it was before: checkpoints of then are still of the same run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig:
    """One training, without its data.

    Parameters
    ----------
    name : what tables and curves call it; unique in a recipe.
    backbone, backbone_options : where the model comes from (registry ``BACKBONES``) and its options.
    pacing, pacing_options : in which order records are seen (registry ``PACING``) and its options.
    objective, objective_options : what is minimised (registry ``OBJECTIVES``) and its options.
    steps : updates of the weights.
    batch_size : records of an update, over all ranks.
    micro_batch_size : records in memory at a time; 0 means the whole batch. It changes memory, not the result.
    learning_rate : peak of the schedule.
    schedule, schedule_options : how the rate moves (registry ``SCHEDULES``) and its options.
    weight_decay : AdamW's decay, on matrices only.
    max_gradient_norm : gradients with a larger norm are scaled down to it.
    max_tokens : longer texts are cut.
    seed : starting weights, order and dropout.
    precision : ``auto`` takes bfloat16 where the device multiplies it natively. It pays for wide matrices; for a small
        mixture of experts on a CPU, whose shapes change every step, it was 2 to 3 times slower.
    checkpoint_every : steps between checkpoints.
    length_window : steps whose records are sorted by length and cut into batches of alike ones, so that less is padded;
        1 sorts nothing.
    packing : ``rows`` puts several short texts into one row of up to ``max_tokens``, each seeing itself alone; ``none``
        gives each a row of its own. It changes memory and time, and of the result only what dropout draws.
    init_from : ``RUN/ARM`` of a finished training whose vocabulary and weights, but for heads of another shape, this
        one starts from; empty to start from nothing.
    """

    name: str
    backbone: str = "small"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    pacing: str = "linear"
    pacing_options: dict[str, Any] = field(default_factory=dict)
    objective: str = "classification"
    steps: int = 300
    batch_size: int = 64
    micro_batch_size: int = 0
    learning_rate: float = 1e-3
    schedule: str = "wsd"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    max_tokens: int = 64
    seed: int = 0
    precision: Precision = "float32"
    checkpoint_every: int = 100
    length_window: int = 1
    packing: Packing = "none"
    objective_options: dict[str, Any] = field(default_factory=dict)
    init_from: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "max_tokens", "checkpoint_every", "length_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.micro_batch_size < 0:
            raise ValueError(f"micro_batch_size={self.micro_batch_size} must be 0 or more")
        for name in ("learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"weight_decay={self.weight_decay} must lie in [0, 1)")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie in [0, 2**63)")
        for name, legal in (("precision", get_args(Precision)), ("packing", get_args(Packing))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(legal)}")

    def settings(self) -> dict[str, Any]:
        """Every setting by name, but those that came later and are as things were before."""
        return {name: value for name, value in asdict(self).items() if name not in _ADDED or value != _ADDED[name]}

    def canonical(self) -> str:
        """The settings as JSON with sorted keys."""
        return json.dumps(self.settings(), sort_keys=True, ensure_ascii=False)

    def digest(self) -> str:
        """SHA-256 (hex) of ``canonical``, without what cannot change the weights."""
        settings = {key: value for key, value in self.settings().items() if key not in ("name", "checkpoint_every")}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
