"""The moving parts of one training: batches in, updates of the weights out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputing

from catalog.errors import ConfigError, DataError
from training.arm import ArmConfig
from training.averaging import WeightAverage
from training.checkpoint import Moving, TrainingState, load_record_losses, read_manifest
from training.data import TrainingData
from training.distributed import BatchLoss, World, whole_counts
from training.evaluation.flops import count_flops
from training.memory import MemoryNeed, memory_need
from training.model import Block
from training.objectives import Batch, Corpus, Objective, Records
from training.optimizers import OPTIMIZERS
from training.pacing import PACING, Online
from training.precision import AUTOCAST, loss_scaler
from training.remembering import TRAINED
from training.schedules import SCHEDULES
from training.stopping import MOST_RECORDS, held_out
from training.stream import Stream
from training.token_source import TokenSource

_NAMED_RECORDS = 20
"""Record ids that an error message lists."""


class Run:
    """One training in one process of a world.

    Parameters
    ----------
    stream : its order.
    network : what the objective trains, on its device; it is spread over the world by ``spread``.
    precision : what is computed in; not ``auto``.
    """

    def __init__(
        self,
        arm: ArmConfig,
        data: TrainingData,
        stream: Stream,
        source: TokenSource,
        objective: Objective,
        network: nn.Module,
        world: World,
        device: torch.device,
        precision: str,
    ) -> None:
        self.arm, self.data, self.stream, self.source = arm, data, stream, source
        self.network, self.world, self.device = network.train(), world, device
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
        objective.begin(network, self.corpus)
        schedule = SCHEDULES[arm.schedule]
        self.schedule, self.schedule_config = schedule.member, schedule.configured(arm.schedule_options)
        pacing = PACING[arm.pacing].configured(arm.pacing_options)
        self.online = pacing if isinstance(pacing, Online) else None
        kept = self.online is not None or arm.record_losses == "last"
        self.record_losses = np.full(len(data.manifest), np.nan) if kept else None
        self.held_out = np.flatnonzero(held_out(arm, data.manifest))[:MOST_RECORDS].tolist()
        self.measured: dict[str, float] = {}
        prepare_blocks(arm, network)
        self.loss = BatchLoss(objective, network)
        self.spread: nn.Module = self.loss
        self._has_unused = False

    def start(self) -> Moving:
        """Spread the network over the world and make what changes it."""
        self.world.check(self.arm, self.network)
        self.spread = self.world.spread(self.loss, has_unused=self._has_unused)
        self.trained = [one for one in self.network.parameters() if one.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [one for one in self.trained if one.ndim >= 2], "weight_decay": self.arm.weight_decay},
            {"params": [one for one in self.trained if one.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS[self.arm.optimizer]
        config = optimizer.configured(self.arm.optimizer_options)
        self.moving = Moving(
            network=self.network,
            optimizer=optimizer.member(groups, self.arm.learning_rate, config),
            average=WeightAverage(self.network, self.arm.ema_decay) if self.arm.ema_decay else None,
            scaler=loss_scaler(self.precision, self.device),
        )
        return self.moving

    def fetch(self, rows: list[int], step: int) -> list[Batch]:
        """Records as what is in memory at a time."""
        if self.world.is_alone:
            size = self.arm.micro_batch_size or len(rows)
            return [self._micro_batch(rows[start : start + size], step) for start in range(0, len(rows), size)]
        parts = self.world.num_micro_batches(self.arm.batch_size, self.arm.micro_batch_size)
        return [self._micro_batch(part.tolist(), step) for part in np.array_split(np.array(rows), parts)]

    def _micro_batch(self, rows: list[int], step: int) -> Batch:
        # Shards hold unsigned numbers, in which the label of a position that has none would be a token.
        ids = [np.asarray(one, dtype=np.int64) for one in self.source.rows(rows)]
        return self.objective.batch(Records(corpus=self.corpus, step=step, rows=rows, ids=ids))

    def update(self, step: int, micro_batches: list[Batch]) -> tuple[float, int]:
        """Do the update that follows ``step`` finished ones; return its loss and the padded tokens it read."""
        scaler, optimizer = self.moving.scaler, self.moving.optimizer
        whole, shares = whole_counts(self.world, micro_batches, self.arm.batch_size)
        losses = []
        for number, micro in enumerate(micro_batches, start=1):
            with self.world.exchanging(self.spread, last=number == len(micro_batches)):
                total, own = self._loss_of(micro, whole, shares[number - 1])
                torch.autograd.backward(total if scaler is None else scaler.scale(total))
            losses.append(own.item())
        if scaler is not None:
            scaler.unscale_(optimizer)
        loss, num_tokens = self.world.summed([sum(losses, 0.0), sum(one.num_tokens for one in micro_batches)])
        norm = self.world.clip(self.network, self.arm.max_gradient_norm)
        # In float16 a gradient beyond its range is met by a smaller scale; the step is left out.
        if not math.isfinite(loss) or not (math.isfinite(norm) or (scaler is not None and scaler.get_scale() > 1)):
            self._refuse(step, micro_batches, losses, loss, norm)
        rate = self.arm.learning_rate * self.schedule(step, self.arm.steps, self.schedule_config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        if self.moving.average is not None:
            self.moving.average.update(step + 1)
        self.measured = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        return loss, int(num_tokens)

    def _loss_of(self, micro: Batch, whole: list[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """What to differentiate, and the loss to report; losses of layers weigh ``share``."""
        tensors = {name: one.to(self.device) for name, one in micro.tensors.items()}
        each = self.record_losses is not None
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            total, own, each_B = self.spread(tensors, micro.counts, whole, share, each=each)
        if self.record_losses is not None and each_B is not None:
            for rows, found in self.world.gathered((micro.rows, each_B.double().cpu().numpy())):
                _remember(rows, found, self.record_losses)
        # All strategies give every process the mean of the gradients; losses are parts of a sum.
        return total * self.world.size if not self.world.is_alone else total, own

    def revise(self, step: int) -> bool:
        """Where an online pacing asks for it, go on with new weights from ``step`` on; say whether it did."""
        if self.online is None or self.record_losses is None or step % self.online.every or step >= self.arm.steps:
            return False
        first = self.stream.manifest
        progress = step / self.arm.steps
        weight = first.frame["weight"].to_numpy()
        new = self.online.reweighted(weight, self.record_losses, progress, self.arm.batch_size)
        self.stream = self.stream.revised(step, first.reweighted(new))
        return True

    def restore(self, folder: Path, checkpoint: Path, state: TrainingState) -> None:
        """Take up the order where a checkpoint left it."""
        for start, digest in state.revisions:
            self.stream = self.stream.revised(start, read_manifest(folder, digest))
        if self.record_losses is not None:
            self.record_losses = load_record_losses(checkpoint)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss of the records that are held out, by the average of the weights where there is one.

        Every process measures all of them, so that all come to the same answer whatever their number.
        """
        size = self.arm.micro_batch_size or self.arm.batch_size
        self.network.eval()
        # With step 0 masks are the same at every check.
        batches = [self._micro_batch(self.held_out[at : at + size], 0) for at in range(0, len(self.held_out), size)]
        whole = [sum(term) for term in zip(*(one.counts for one in batches), strict=True)]
        kept, self.record_losses = self.record_losses, None
        loss = sum(self._loss_of(one, whole)[1].item() for one in batches)
        self.record_losses = kept
        self.network.train()
        return loss

    def memory_need(self) -> MemoryNeed:
        """What a step will hold, by forward passes of the longest record."""
        size = -(-self.arm.batch_size // self.world.size)
        kept, self.record_losses = self.record_losses, None
        lengths = self.source.lengths
        longest = int(np.argmax([len(one) for one in self.data.texts] if lengths is None else lengths))

        def forward(count: int) -> None:
            micro = self._micro_batch([longest] * count, 0)
            self._loss_of(micro, list(micro.counts))

        need = memory_need(
            self.arm,
            self.network,
            forward,
            records=min(self.arm.micro_batch_size or size, size),
            parts=self.world.parts(self.network),
        )
        self.record_losses = kept
        return need

    def probe_flops(self) -> float:
        """Floating-point operations per padded token, forward and backward, on the first micro-batch."""
        rows = self.stream.batch(0).tolist()[: self.arm.micro_batch_size or None]
        micro = self._micro_batch(rows, 0)
        kept, self.record_losses = self.record_losses, None
        flops = count_flops(lambda: torch.autograd.backward(self._loss_of(micro, list(micro.counts))[0]))
        self.record_losses = kept
        unused = any(one.requires_grad and one.grad is None for one in self.network.parameters())
        # Of another batch no text may be long enough to ask for a passage.
        self._has_unused = unused or self.arm.retrieval in TRAINED
        self.network.zero_grad()
        return flops / micro.num_tokens

    def _refuse(self, step: int, micro_batches: list[Batch], losses: list[float], loss: float, norm: float) -> None:
        """Say which records' losses are not finite; all of the batch where none is alone responsible."""
        rows = [row for one in micro_batches for row in one.rows]
        if self.world.is_alone:
            suspects = [one for one, found in zip(micro_batches, losses, strict=True) if not math.isfinite(found)]
            alone = [row for one in suspects for row in one.rows if not math.isfinite(self._alone(row, step))]
            rows = alone or [row for one in suspects for row in one.rows] or rows
        rows = [row for part in self.world.gathered(rows) for row in part]
        ids = self.data.manifest.frame["id"].gather(rows).to_list()
        more = f" and {len(ids) - _NAMED_RECORDS} more" if len(ids) > _NAMED_RECORDS else ""
        raise DataError(
            f"loss={loss:g} with gradient norm={norm:g} at step {step} of arm {self.arm.name!r} must be finite; lower "
            f"learning_rate={self.arm.learning_rate:g} or look at the batch's records: "
            f"{', '.join(ids[:_NAMED_RECORDS])}{more}"
        )

    @torch.no_grad()
    def _alone(self, row: int, step: int) -> float:
        """A record's loss in a batch of its own."""
        micro = self._micro_batch([row], step)
        return float(self._loss_of(micro, list(micro.counts))[1])


def prepare_blocks(arm: ArmConfig, network: nn.Module) -> None:
    """Have the network's blocks computed again or compiled, where the arm asks for it.

    Raises
    ------
    ConfigError : the network has none.
    """
    blocks = [part for part in network.modules() if isinstance(part, Block)]
    for name in ("recompute", "compile"):
        if getattr(arm, name) != "none" and not blocks:
            raise ConfigError(
                f"{name}={getattr(arm, name)!r} of arm {arm.name!r}: backbone {arm.backbone!r} has no blocks of "
                f"ours; set {name} to none"
            )
    for block in blocks:
        if arm.recompute == "blocks":
            block.forward = _recomputed(block.forward)  # type: ignore[method-assign]
            block.recall = _recomputed(block.recall)  # type: ignore[method-assign]
        if arm.compile != "none":
            block.compile(dynamic=True, backend=arm.compile)


def _remember(rows: list[int], each: npt.NDArray[np.float64], record_losses: npt.NDArray[np.float64]) -> None:
    """Keep each record's own loss, where it has one."""
    for row, loss in zip(rows, each.tolist(), strict=True):
        if not math.isnan(loss):
            record_losses[row] = loss


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same forward pass, which keeps its inputs alone and is run again when its gradient is asked for."""

    def run(*inputs: Any) -> Tensor:
        out: Tensor = recomputing(forward, *inputs, use_reentrant=False)
        return out

    return run
