"""The training loop: one arm, one device, exactly resumable.

Everything random in a step follows from (seed, step): the batch from the stream, dropout from a generator seeded anew
at every step. So a checkpoint needs weights, optimizer state and one integer, and a run that was killed anywhere ends
with the same bits as one that was not.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catalog.errors import ConfigError, DataError
from training.arm import ArmConfig, Precision
from training.backbones import BACKBONES
from training.checkpoint import (
    TrainingState,
    latest_checkpoint,
    load_record_losses,
    load_weights,
    publish_manifest,
    read_manifest,
    read_state,
    save_checkpoint,
)
from training.data import TrainingData
from training.evaluation.flops import count_flops
from training.initial import Initial, take_over
from training.loader import Loader
from training.model import auxiliary_loss
from training.objectives import Batch, Corpus, Losses, Objective, Records, objective_of
from training.pacing import PACING, Online
from training.packing import SeesDocuments
from training.schedules import SCHEDULES
from training.stream import Revision, Stream
from training.token_shards import TokenShards
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
    stream_wait_share : share of ``seconds`` that was spent waiting for a batch, in [0, 1].
    revisions : manifests that an online pacing published, with the steps from which they were in force.
    network : what was trained: the model, or what holds it and the objective's own modules.
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
    stream_wait_share: float = 0.0
    revisions: tuple[Revision, ...] = ()
    network: nn.Module | None = None

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
    on_model: Callable[[int, nn.Module, TextTokenizer], None] | None = None,
    token_dir: Path | None = None,
    num_workers: int = 1,
    initial: Initial | None = None,
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
    on_model : called after every update with (updates done, the network in evaluation mode, its tokenizer), without
        gradients; for measuring as training goes on. It is not counted into the time, and must not change the network.
    token_dir : folder in which all texts are tokenized ahead, once for all runs with the same texts and tokenizer; None
        tokenizes each batch when its turn comes.
    num_workers : threads that make batches ahead. Like ``token_dir`` they change the time, not the result.
    initial : what the arm's ``init_from`` names; needed where it names something, and only then.

    Raises
    ------
    ConfigError : the arm names or configures something that does not exist.
    DataError : fewer records than a batch, or a loss that is not finite (with the batch's record ids).
    ConflictError, CorruptionError : a checkpoint of another run, or a damaged one.
    """
    device = torch.device(device)
    stream_of(arm, data)
    state = TrainingState(
        config_digest=arm.digest(), data_digest=data.digest, precision=resolved_precision(arm.precision, device)
    )
    checkpoint = latest_checkpoint(checkpoint_dir) if checkpoint_dir else None
    document = None
    if checkpoint:
        state, document = read_state(checkpoint, state)
    with _seeded_per_step(device) as seed_step:
        seed_step(arm.seed, _MODEL_DRAW)
        objective = objective_of(arm)
        tokenizer, model = _network(arm, data, document, objective, initial)
        # Holds the model, and whatever else the objective trains beside it.
        network = objective.network(model)
        source = _TokenSource(arm, data, tokenizer, token_dir)
        stream = stream_of(arm, data, source.lengths)
        run = _Run(arm, data, stream, source, objective, network.to(device), device, state.precision)
        seed_step(arm.seed, 0)
        flops_per_token = run.probe_flops()
        if checkpoint and checkpoint_dir:
            load_weights(checkpoint, network, run.optimizer)
            run.restore(checkpoint_dir, checkpoint, state)

        def save() -> None:
            if checkpoint_dir:
                save_checkpoint(checkpoint_dir, state, network, run.optimizer, tokenizer.document, run.record_losses)

        with Loader(run.stream, run.fetch, start_step=state.step, num_workers=num_workers) as loader:
            while state.step < arm.steps and not should_stop():
                started, waited = time.perf_counter(), loader.wait_seconds
                seed_step(arm.seed, state.step)
                loss, num_tokens = run.update(state.step, loader.take())
                step = state.step + 1
                if run.revise(step):
                    loader.revise(run.stream)
                    if checkpoint_dir:
                        publish_manifest(checkpoint_dir, run.stream.revisions[-1].manifest)
                state = replace(
                    state,
                    step=step,
                    losses=(*state.losses, loss),
                    num_tokens=state.num_tokens + num_tokens,
                    seconds=state.seconds + time.perf_counter() - started,
                    wait_seconds=state.wait_seconds + loader.wait_seconds - waited,
                    revisions=tuple((start, one.digest) for start, one in run.stream.revisions),
                )
                if state.step % arm.checkpoint_every == 0:
                    save()
                on_progress(state.step, arm.steps, loss)
                if on_model is not None:
                    with torch.no_grad():
                        on_model(state.step, model.eval(), tokenizer)
                    network.train()
        if state.step % arm.checkpoint_every:
            save()
    sizes = [(one.numel(), one.requires_grad) for one in network.parameters()]
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
        stream_wait_share=state.wait_seconds / state.seconds if state.seconds else 0.0,
        revisions=run.stream.revisions,
        network=network.to("cpu").eval(),
    )


def stream_of(arm: ArmConfig, data: TrainingData, lengths: npt.NDArray[np.int64] | None = None) -> Stream:
    """The order in which an arm sees the records.

    Parameters
    ----------
    lengths : (n,) tokens of each record; without them nothing is drawn, and only what they have no say in is checked.

    Raises
    ------
    ConfigError, DataError : the arm names or configures something that does not exist, or has too few records.
    """
    return Stream(
        manifest=data.manifest,
        pacing=arm.pacing,
        options=arm.pacing_options,
        seed=arm.seed,
        total_steps=arm.steps,
        global_batch_size=arm.batch_size,
        lengths=np.zeros(len(data.manifest), dtype=np.int64) if lengths is None else lengths,
        length_window=arm.length_window,
    )


class _TokenSource:
    """Token ids by row number: from shards, from memory where lengths are needed before, or made when asked for."""

    def __init__(self, arm: ArmConfig, data: TrainingData, tokenizer: TextTokenizer, token_dir: Path | None) -> None:
        self.tokenizer, self._texts, self._max_tokens = tokenizer, data.texts, arm.max_tokens
        self.lengths: npt.NDArray[np.int64] | None = None
        self.rows: Callable[[list[int]], Sequence[Any]] = self._tokenized
        if token_dir is not None:
            shards = TokenShards.open(token_dir, data.texts, tokenizer, arm.max_tokens)
            self.rows, self.lengths = shards.rows, shards.lengths
        elif arm.length_window > 1:
            ids = tokenizer.token_ids(data.texts, arm.max_tokens)
            self.rows = lambda rows: [ids[row] for row in rows]
            self.lengths = np.array([len(one) for one in ids], dtype=np.int64)

    def _tokenized(self, rows: list[int]) -> Sequence[Any]:
        return self.tokenizer.token_ids([self._texts[row] for row in rows], self._max_tokens)


class _Run:
    """The moving parts of one training."""

    def __init__(
        self,
        arm: ArmConfig,
        data: TrainingData,
        stream: Stream,
        source: _TokenSource,
        objective: Objective,
        model: nn.Module,
        device: torch.device,
        precision: str,
    ) -> None:
        self.arm, self.data, self.stream, self.source = arm, data, stream, source
        self.model, self.device = model.train(), device
        self.precision = precision
        self.objective = objective
        self.corpus = Corpus(
            data=data,
            tokenizer=source.tokenizer,
            max_tokens=arm.max_tokens,
            packed=arm.packing == "rows",
            seed=arm.seed,
            total_steps=arm.steps,
        )
        schedule = SCHEDULES[arm.schedule]
        self.schedule, self.schedule_config = schedule.member, schedule.configured(arm.schedule_options)
        self.trained = [one for one in model.parameters() if one.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [one for one in self.trained if one.ndim >= 2], "weight_decay": arm.weight_decay},
            {"params": [one for one in self.trained if one.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=arm.learning_rate, fused=device.type in ("cpu", "cuda"))

        pacing = PACING[arm.pacing].configured(arm.pacing_options)
        self.online = pacing if isinstance(pacing, Online) else None
        self.record_losses = np.full(len(data.manifest), np.nan) if self.online else None

    def fetch(self, rows: list[int], step: int) -> list[Batch]:
        """Records as what is in memory at a time."""
        size = self.arm.micro_batch_size or len(rows)
        return [self._micro_batch(rows[start : start + size], step) for start in range(0, len(rows), size)]

    def _micro_batch(self, rows: list[int], step: int) -> Batch:
        # Shards hold unsigned numbers, in which the label of a position that has none would be a token.
        ids = [np.asarray(one, dtype=np.int64) for one in self.source.rows(rows)]
        return self.objective.batch(Records(corpus=self.corpus, step=step, rows=rows, ids=ids))

    def update(self, step: int, micro_batches: list[Batch]) -> tuple[float, int]:
        """Do the update that follows ``step`` finished ones; return its loss and the padded tokens it read."""
        rows = [row for one in micro_batches for row in one.rows]
        counts = [sum(term) for term in zip(*(one.counts for one in micro_batches), strict=True)]
        total, num_tokens = 0.0, 0
        for micro in micro_batches:
            weighted = self._forward(micro).mean(micro.counts, counts)
            extra = auxiliary_loss(self.model)
            whole = weighted if extra is None else weighted + extra * (len(micro.rows) / len(rows))
            torch.autograd.backward(whole)
            total += weighted.item()
            num_tokens += micro.num_tokens
        norm = nn.utils.clip_grad_norm_(self.trained, self.arm.max_gradient_norm).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._refuse(step, rows, total, norm)
        rate = self.arm.learning_rate * self.schedule(step, self.arm.steps, self.schedule_config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, num_tokens

    def revise(self, step: int) -> bool:
        """Where an online pacing asks for it, go on with new weights from ``step`` on; say whether it did."""
        if self.online is None or self.record_losses is None or step % self.online.every or step >= self.arm.steps:
            return False
        weight = self.data.manifest.frame["weight"].to_numpy()
        progress = step / self.arm.steps
        new = self.online.reweighted(weight, self.record_losses, progress, self.arm.batch_size)
        self.stream = self.stream.revised(step, self.data.manifest.reweighted(new))
        return True

    def restore(self, folder: Path, checkpoint: Path, state: TrainingState) -> None:
        """Take up the order where a checkpoint left it."""
        for start, digest in state.revisions:
            self.stream = self.stream.revised(start, read_manifest(folder, digest))
        if self.online is not None:
            self.record_losses = load_record_losses(checkpoint)

    def probe_flops(self) -> float:
        """Floating-point operations per padded token, forward and backward, on the first micro-batch."""
        rows = self.stream.batch(0).tolist()[: self.arm.micro_batch_size or None]
        micro = self._micro_batch(rows, 0)
        kept, self.record_losses = self.record_losses, None
        flops = count_flops(lambda: torch.autograd.backward(self._forward(micro).mean(micro.counts, micro.counts)))
        self.record_losses = kept
        self.optimizer.zero_grad()
        return flops / micro.num_tokens

    def _forward(self, micro: Batch) -> Losses:
        tensors = {name: one.to(self.device) for name, one in micro.tensors.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            losses = self.objective.losses(self.model, tensors, each=self.record_losses is not None)
        if self.record_losses is not None and losses.each is not None:
            self._remember(micro.rows, losses.each.double().cpu().numpy(), self.record_losses)
        return losses

    @staticmethod
    def _remember(rows: list[int], each: npt.NDArray[np.float64], record_losses: npt.NDArray[np.float64]) -> None:
        """Keep each record's own loss, where it has one."""
        for row, loss in zip(rows, each.tolist(), strict=True):
            if not math.isnan(loss):
                record_losses[row] = loss

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


def seeing_documents(arm: ArmConfig, model: nn.Module) -> SeesDocuments:
    """The model, if it can be given packed rows.

    Raises
    ------
    ConfigError : it takes one text a row.
    """
    if not isinstance(model, SeesDocuments):
        raise ConfigError(
            f"packing='rows' of arm {arm.name!r}: backbone {arm.backbone!r} takes one text a row; set packing to none"
        )
    return model


def _network(
    arm: ArmConfig, data: TrainingData, document: str | None, objective: Objective, initial: Initial | None
) -> tuple[TextTokenizer, nn.Module]:
    if bool(arm.init_from) != (initial is not None):
        raise ConfigError(f"init_from={arm.init_from!r} of arm {arm.name!r} and the weights given do not go together")
    registered = BACKBONES[arm.backbone]
    backbone, config = registered.member, registered.configured(arm.backbone_options)
    objective.check(data)
    heads = objective.heads(len(data.classes))
    backbone.check(heads, config)
    if document:
        tokenizer = TextTokenizer(document)
    else:
        known = initial.tokenizer if initial else backbone.tokenizer(data.texts, config)
        tokenizer = known.with_special(objective.special_tokens())
    model = backbone.build(vocab_size=tokenizer.vocab_size, heads=heads, max_tokens=arm.max_tokens, config=config)
    if arm.packing == "rows":
        seeing_documents(arm, model)
    if initial:
        take_over(model, initial.weights)
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
