"""An arm: one model trained in one order, and everything that fixes its weights besides the data."""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Packing = Literal["none", "rows"]
Recomputed = Literal["none", "blocks"]
Compiled = Literal["none", "inductor", "aot_eager"]
RecordLosses = Literal["none", "last"]

_ADDED: dict[str, Any] = {
    "length_window": 1,
    "packing": "none",
    "objective_options": {},
    "init_from": "",
    "optimizer": "adamw",
    "optimizer_options": {},
    "ema_decay": 0.0,
    "recompute": "none",
    "compile": "none",
    "stop_patience": 0,
    "stop_every": 50,
    "stop_share": 0.1,
    "record_losses": "none",
    "retrieval": "none",
    "retrieval_options": {},
}
"""Settings that came later, with how it was before: checkpoints of then are still of the same run."""
_WITHOUT_TRAINING = frozenset(
    {"name", "backbone", "backbone_options", "objective", "objective_options", "steps", "max_tokens", "seed"}
    | {"init_from", "retrieval", "retrieval_options"}
)
"""Settings that matter where nothing is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig:
    """One training, without its data.

    Parameters
    ----------
    name : what tables and curves call it; unique in a recipe.
    backbone, backbone_options : where the model comes from (registry ``BACKBONES``) and its options.
    pacing, pacing_options : in which order records are seen (registry ``PACING``) and its options.
    objective, objective_options : what is minimised (registry ``OBJECTIVES``) and its options.
    steps : updates of the weights; 0, with ``init_from`` and ``retrieval``, measures that model as it is.
    batch_size : records of an update, over all ranks.
    micro_batch_size : records in memory at a time; 0 means the whole batch. It changes memory, not the result.
    learning_rate : peak of the schedule.
    schedule, schedule_options : how the rate moves (registry ``SCHEDULES``) and its options.
    weight_decay : share of each matrix that a step at the peak rate takes away, by that rate; vectors keep theirs.
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
    init_from : ``RUN/ARM`` of a finished training whose vocabulary (so recipes refuse ``vocab_size`` beside it) and
        weights, but for heads of another shape, this one starts from, or the folder of a saved model or of
        checkpoints, which begins with ``/``, ``./`` or ``../``; empty to start from nothing.
    optimizer, optimizer_options : how gradients change the weights (registry ``OPTIMIZERS``) and its options.
    ema_decay : share that the moving average of the weights keeps at each step, in [0, 1); the average is what is
        measured and saved. 0 averages nothing.
    recompute : ``blocks`` keeps only what enters a block and computes the rest again for the backward pass: less
        memory, about a third more time, equal bits.
    compile : a backend of torch.compile for the blocks: ``inductor`` makes kernels; ``aot_eager`` makes none, to tell
        what a failure comes from. It changes time, and results in the last bits.
    stop_patience : checks of the loss on held-out records without a new best after which training ends; 0 trains all
        steps.
    stop_every : steps between such checks.
    stop_share : share of the records that is held out for them, by hash of the id, in (0, 1); they are not trained on.
    record_losses : ``last`` keeps the loss that each record had when it was last drawn, beside the model.
    retrieval, retrieval_options : the memory of training records that the model is also measured with, and with
        ``cross_attention`` trained with (``none``, or a name in registry ``RETRIEVAL``), and its options; see
        ``training.remembering``.
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
    optimizer: str = "adamw"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    ema_decay: float = 0.0
    recompute: Recomputed = "none"
    compile: Compiled = "none"
    stop_patience: int = 0
    stop_every: int = 50
    stop_share: float = 0.1
    record_losses: RecordLosses = "none"
    retrieval: str = "none"
    retrieval_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_retrieval()
        for name in ("batch_size", "max_tokens", "checkpoint_every", "length_window", "stop_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("micro_batch_size", "stop_patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        for name in ("learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")
        for name in ("weight_decay", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie in [0, 2**63)")
        choices = {"precision": Precision, "packing": Packing, "recompute": Recomputed, "compile": Compiled}
        choices["record_losses"] = RecordLosses
        for name, legal in choices.items():
            if getattr(self, name) not in get_args(legal):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(legal))}")
        if self.compile != "none" and self.recompute != "none":
            raise ValueError(f"compile={self.compile!r} goes without recompute={self.recompute!r}; choose one")
        self._check_stop()

    def _check_stop(self) -> None:
        if not 0 < self.stop_share < 1:
            raise ValueError(f"stop_share={self.stop_share} must lie in (0, 1)")
        for name in ("stop_every", "stop_share"):
            if not self.stop_patience and getattr(self, name) != _ADDED[name]:
                raise ValueError(f"{name}={getattr(self, name)} has no effect with stop_patience=0; set that too")
        if self.stop_patience and self.stop_every >= self.steps:
            raise ValueError(
                f"stop_every={self.stop_every} must be below steps={self.steps}: there would be nothing to stop; check "
                "more often, or set stop_patience to 0"
            )

    def _check_retrieval(self) -> None:
        if self.retrieval_options and self.retrieval == "none":
            raise ValueError(f"retrieval_options={self.retrieval_options} has no effect without retrieval; name one")
        if self.steps > 0:
            return
        if self.steps < 0 or not self.init_from or self.retrieval == "none":
            raise ValueError(
                f"steps={self.steps} must be at least 1, or 0 for a model of init_from that gets a memory of retrieval"
            )
        for one in fields(self):
            default = one.default if one.default is not MISSING else {}
            if one.name not in _WITHOUT_TRAINING and getattr(self, one.name) != default:
                raise ValueError(f"{one.name}={getattr(self, one.name)!r} has no effect with steps=0; leave it out")

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
