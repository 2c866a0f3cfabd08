"""The training loop: one arm, one device, exactly resumable.

Everything random in a step follows from (seed, step): the batch from the stream, dropout from a generator seeded anew
at every step. So a checkpoint needs weights, optimizer state and one integer, and a run that was killed anywhere ends
with the same bits as one that was not.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.errors import DataError
from training.arm import ArmConfig, Precision
from training.backbones import BACKBONES
from training.checkpoint import TrainingState, latest_checkpoint, load_weights, read_state, save_checkpoint
from training.data import TrainingData
from training.evaluation.flops import count_flops
from training.model import auxiliary_loss
from training.objectives import IGNORED, OBJECTIVES
from training.schedules import SCHEDULES
from training.stream import Stream
from training.tokenizer import Encoded, TextTokenizer

_NAMED_RECORDS = 20
"""Record ids that an error message lists."""
_MODEL_DRAW = -1
"""The "step" whose seed draws the starting weights."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A trained model and what it took.

    Parameters
    ----------
    arm : what was trained.
    model : the merged network in evaluation mode, on the CPU.
    tokenizer : its tokenizer.
    classes : names of its outputs.
    losses : (step, loss) of every update, step counted from 1; the objective alone, in nats.
    steps : updates done; fewer than ``arm.steps`` when stopped.
    seconds : training time over all attempts, without building and saving.
    flops : floating-point operations of all forward and backward passes: counted on the first micro-batch, scaled by
        padded tokens.
    num_parameters, num_trained_parameters : size of the network under training, and the part that was trained.
    precision : what it computed in.
    """

    arm: ArmConfig
    model: nn.Module
    tokenizer: TextTokenizer
    classes: tuple[str, ...]
    losses: list[tuple[int, float]]
    steps: int
    seconds: float
    flops: int
    num_parameters: int
    num_trained_parameters: int
    precision: str

    @property
    def finished(self) -> bool:
        """Whether all steps were done."""
        return self.steps == self.arm.steps

    def encode(self, texts: list[str]) -> Encoded:
        """Turn texts into the model's input."""
        return self.tokenizer.encode(texts, self.arm.max_tokens)


def fit(
    arm: ArmConfig,
    data: TrainingData,
    *,
    device: torch.device | str = "cpu",
    checkpoint_dir: Path | None = None,
    on_progress: Callable[[int, int, float], None] = lambda step, total, loss: None,  # noqa: ARG005
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train one arm, from its newest checkpoint when there is one.

    Parameters
    ----------
    arm : what to train.
    data : what to train on.
    device : where to compute.
    checkpoint_dir : folder of this run's checkpoints; None writes none.
    on_progress : called after every update with (updates done, updates in all, loss).
    should_stop : asked before every update; True saves a checkpoint and returns what there is.

    Raises
    ------
    ConfigError : the arm names or configures something that does not exist.
    DataError : fewer records than a batch, or a loss that is not finite (with the batch's record ids).
    ConflictError, CorruptionError : a checkpoint of another run, or a damaged one.
    """
    device = torch.device(device)
    stream = Stream(
        manifest=data.manifest,
        pacing=arm.pacing,
        options=arm.pacing_options,
        seed=arm.seed,
        total_steps=arm.steps,
        global_batch_size=arm.batch_size,
    )
    state = TrainingState(
        config_digest=arm.digest(), data_digest=data.digest, precision=resolved_precision(arm.precision, device)
    )
    checkpoint = latest_checkpoint(checkpoint_dir) if checkpoint_dir else None
    document = None
    if checkpoint:
        state, document = read_state(checkpoint, state)
    with _seeded_per_step(device) as seed_step:
        seed_step(arm.seed, _MODEL_DRAW)
        tokenizer, model = _network(arm, data, document)
        run = _Run(arm, data, stream, tokenizer, model.to(device), device, state.precision)
        seed_step(arm.seed, 0)
        flops_per_token = run.probe_flops()
        if checkpoint:
            load_weights(checkpoint, model, run.optimizer)
        while state.step < arm.steps and not should_stop():
            started = time.perf_counter()
            seed_step(arm.seed, state.step)
            loss, num_tokens = run.update(state.step)
            state = replace(
                state,
                step=state.step + 1,
                losses=(*state.losses, loss),
                num_tokens=state.num_tokens + num_tokens,
                seconds=state.seconds + time.perf_counter() - started,
            )
            if checkpoint_dir and state.step % arm.checkpoint_every == 0:
                save_checkpoint(checkpoint_dir, state, model, run.optimizer, tokenizer.document)
            on_progress(state.step, arm.steps, loss)
        if checkpoint_dir and state.step % arm.checkpoint_every:
            save_checkpoint(checkpoint_dir, state, model, run.optimizer, tokenizer.document)
    sizes = [(one.numel(), one.requires_grad) for one in model.parameters()]
    return FitResult(
        arm=arm,
        model=BACKBONES[arm.backbone].member.merge(model.to("cpu").eval()),
        tokenizer=tokenizer,
        classes=tuple(data.classes),
        losses=list(enumerate(state.losses, start=1)),
        steps=state.step,
        seconds=state.seconds,
        flops=round(flops_per_token * state.num_tokens),
        num_parameters=sum(size for size, _ in sizes),
        num_trained_parameters=sum(size for size, trained in sizes if trained),
        precision=state.precision,
    )


class _Run:
    """The moving parts of one training."""

    def __init__(
        self,
        arm: ArmConfig,
        data: TrainingData,
        stream: Stream,
        tokenizer: TextTokenizer,
        model: nn.Module,
        device: torch.device,
        precision: str,
    ) -> None:
        self.arm, self.data, self.stream, self.tokenizer = arm, data, stream, tokenizer
        self.model, self.device = model.train(), device
        self.precision = precision
        self.objective = OBJECTIVES[arm.objective].member
        schedule = SCHEDULES[arm.schedule]
        self.schedule, self.schedule_config = schedule.member, schedule.configured(arm.schedule_options)
        self.trained = [one for one in model.parameters() if one.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [one for one in self.trained if one.ndim >= 2], "weight_decay": arm.weight_decay},
            {"params": [one for one in self.trained if one.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=arm.learning_rate, fused=device.type in ("cpu", "cuda"))

    def update(self, step: int) -> tuple[float, int]:
        """Do the update that follows ``step`` finished ones; return its loss and the padded tokens it read."""
        rows = self.stream.batch(step).tolist()
        size = self.arm.micro_batch_size or len(rows)
        num_labels = max(1, sum(self.data.labels[row] != IGNORED for row in rows))
        total, num_tokens = 0.0, 0
        for start in range(0, len(rows), size):
            micro = rows[start : start + size]
            share = sum(self.data.labels[row] != IGNORED for row in micro) / num_labels
            loss, batch = self._forward(micro)
            # Each micro-batch weighs by its labels, so that the sum is the mean over the whole batch.
            weighted = loss * share
            extra = auxiliary_loss(self.model)
            (weighted if extra is None else weighted + extra * (len(micro) / len(rows))).backward()
            total += weighted.item()
            num_tokens += batch.input_ids.numel()
        norm = nn.utils.clip_grad_norm_(self.trained, self.arm.max_gradient_norm).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._refuse(step, rows, total, norm)
        rate = self.arm.learning_rate * self.schedule(step, self.arm.steps, self.schedule_config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, num_tokens

    def probe_flops(self) -> float:
        """Floating-point operations per padded token, forward and backward, on the first micro-batch."""
        rows = self.stream.batch(0).tolist()[: self.arm.micro_batch_size or None]
        num_tokens = 0

        def once() -> None:
            nonlocal num_tokens
            loss, batch = self._forward(rows)
            torch.autograd.backward(loss)
            num_tokens = batch.input_ids.numel()

        flops = count_flops(once)
        self.optimizer.zero_grad()
        return flops / num_tokens

    def _forward(self, rows: list[int]) -> tuple[Tensor, Encoded]:
        batch = self.tokenizer.encode([self.data.texts[row] for row in rows], self.arm.max_tokens)
        labels = torch.tensor([self.data.labels[row] for row in rows], device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.model(batch.input_ids.to(self.device), batch.attention_mask.to(self.device))
        return self.objective(logits, labels), batch

    def _refuse(self, step: int, rows: list[int], loss: float, norm: float) -> None:
        ids = self.data.manifest.frame["id"].gather(rows).to_list()
        more = f" and {len(ids) - _NAMED_RECORDS} more" if len(ids) > _NAMED_RECORDS else ""
        raise DataError(
            f"loss={loss:g} with gradient norm={norm:g} at step {step} of arm {self.arm.name!r} must be finite; lower "
            f"learning_rate={self.arm.learning_rate:g} or look at the batch's records: "
            f"{', '.join(ids[:_NAMED_RECORDS])}{more}"
        )


def resolved_precision(precision: Precision, device: torch.device) -> str:
    """``float32`` or ``bfloat16``: for ``auto`` the latter where the device multiplies it natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = device.type == "cpu" and any(
        # Private names: a torch without them is taken for a processor without the instructions.
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bfloat16" if native else "float32"


def _network(arm: ArmConfig, data: TrainingData, document: str | None) -> tuple[TextTokenizer, nn.Module]:
    registered = BACKBONES[arm.backbone]
    backbone, config = registered.member, registered.configured(arm.backbone_options)
    tokenizer = TextTokenizer(document) if document else backbone.tokenizer(data.texts, config)
    model = backbone.build(
        vocab_size=tokenizer.vocab_size, num_classes=len(data.classes), max_tokens=arm.max_tokens, config=config
    )
    return tokenizer, backbone.adapt(model, config)


@contextmanager
def _seeded_per_step(device: torch.device) -> Iterator[Callable[[int, int], None]]:
    """Lend torch's global generator, which dropout and initialisers insist on, and give it back as it was."""

    def seed_step(seed: int, step: int) -> None:
        digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "little"))

    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield seed_step
