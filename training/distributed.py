"""Several processes that train one model: what each knows of the others, and how the network is spread over them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.model import Block, auxiliary_loss
from training.objectives import Batch, Objective, objective_of
from training.optimizers import OPTIMIZERS

Strategy = Literal["none", "ddp", "fsdp2"]


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, of which this is one. Every process calls every method, in the same order.

    Parameters
    ----------
    rank, size : number of this process, and how many there are.
    strategy : ``none`` for one process alone; ``ddp`` gives each the whole model and sums gradients; ``fsdp2`` gives
        each a part of every weight, gradient and optimizer state.
    device : where tensors that are exchanged lie.
    """

    rank: int = 0
    size: int = 1
    strategy: Strategy = "none"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.strategy == "none" and self.size > 1:
            raise ConfigError(f"strategy='none' cannot train in {self.size} processes; choose ddp or fsdp2")

    @property
    def is_alone(self) -> bool:
        """Whether nobody has to be talked to."""
        return self.size == 1

    def summed(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, as float64."""
        if self.is_alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(one) for one in total.tolist()]

    def agreed(self, wanted: bool) -> bool:  # noqa: FBT001 - the value itself
        """Whether any process wants it."""
        return wanted if self.is_alone else self.summed([float(wanted)])[0] > 0

    def gathered(self, one: Any) -> list[Any]:
        """What every process has, by rank."""
        if self.is_alone:
            return [one]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, one)
        return found

    def check(self, arm: ArmConfig, network: nn.Module) -> None:
        """Refuse what cannot be spread.

        Raises
        ------
        ConfigError : with the setting and what to change.
        """
        if arm.batch_size < self.size:
            raise ConfigError(
                f"batch_size={arm.batch_size} leaves nothing for some of {self.size} processes; raise it or start fewer"
            )
        self.num_micro_batches(arm.batch_size, arm.micro_batch_size)
        if self.strategy != "fsdp2":
            return
        if any(hasattr(part, "auxiliary_loss") for part in network.modules()):
            raise ConfigError(
                "strategy='fsdp2' cannot train layers with a loss of their own (experts), whose weights are not "
                "gathered when it is differentiated; use ddp"
            )
        # A process whose texts are longer has more segments, and would wait for weights that the others do not give.
        if objective_of(arm).heads(2).segment_tokens:
            raise ConfigError(
                "strategy='fsdp2' cannot train on segments of texts, of which a process has more than another; leave "
                "segment_tokens out, or use ddp"
            )
        if getattr(OPTIMIZERS[arm.optimizer].config, "needs_whole", False):
            raise ConfigError(
                f"strategy='fsdp2' cannot train with optimizer={arm.optimizer!r}, whose averages are over rows and "
                "columns of whole matrices, of which a process has a part; use adamw, or strategy ddp"
            )
        if arm.precision == "float16":
            raise ConfigError("strategy='fsdp2' does not scale losses; set precision to bfloat16 or float32")

    def num_micro_batches(self, batch_size: int, micro_batch_size: int) -> int:
        """Into how many parts every process cuts its share: equally many, as they meet in each.

        Raises
        ------
        ConfigError : the smallest share has fewer records.
        """
        largest, smallest = -(-batch_size // self.size), batch_size // self.size
        parts = -(-largest // (micro_batch_size or largest))
        if parts > smallest:
            raise ConfigError(
                f"micro_batch_size={micro_batch_size} cuts {largest} records of a process into {parts} parts, and "
                f"another process has {smallest} alone; make batch_size={batch_size} a multiple of {self.size}"
            )
        return parts

    def spread(self, losses: "BatchLoss", *, has_unused: bool) -> nn.Module:
        """The same module, giving and taking its part of the gradients.

        Parameters
        ----------
        has_unused : whether some trained weights take no part in the loss.
        """
        if self.strategy == "ddp":
            return nn.parallel.DistributedDataParallel(losses, find_unused_parameters=has_unused)
        if self.strategy == "fsdp2":
            from torch.distributed.fsdp import fully_shard

            for part in losses.network.modules():
                if isinstance(part, Block):
                    fully_shard(part)
            fully_shard(losses)
        return losses

    @contextmanager
    def exchanging(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Around a forward and backward pass: gradients of all but the last micro-batch of a step stay at home."""
        waits = isinstance(module, nn.parallel.DistributedDataParallel) and not last
        with module.no_sync() if waits else nullcontext():  # type: ignore[operator]
            yield


ALONE = World()


class BatchLoss(nn.Module):
    """A micro-batch's part of the whole batch's loss: what a process computes between two exchanges.

    Parameters
    ----------
    objective, network : as ``training.objectives`` has them.
    """

    def __init__(self, objective: Objective, network: nn.Module) -> None:
        super().__init__()
        self.objective, self.network = objective, network

    def forward(
        self, tensors: dict[str, Tensor], counts: Sequence[int], whole: Sequence[int], share: float, *, each: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What to differentiate, the objective's part of it, and each record's own loss where asked for.

        Parameters
        ----------
        tensors, counts : of a ``Batch``.
        whole : targets of each term in the whole batch, of all processes.
        share : the micro-batch's records by those of the whole batch, which losses of layers weigh by.
        """
        losses = self.objective.losses(self.network, tensors, each=each)
        weighted = losses.mean(counts, whole)
        extra = auxiliary_loss(self.network)
        return weighted if extra is None else weighted + extra * share, weighted.detach(), losses.each


def whole_counts(world: World, micro_batches: Sequence[Batch]) -> list[int]:
    """Targets of each term in the whole batch: what every loss is divided by, so that all parts add up to it."""
    own = [sum(term) for term in zip(*(one.counts for one in micro_batches), strict=True)]
    return [int(one) for one in world.summed(own)]


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """Every entry of the state, on the CPU and in one piece; processes that hold parts of it give them to all."""
    from torch.distributed.tensor import DTensor

    return {
        name: (one.full_tensor() if isinstance(one, DTensor) else one).detach().cpu()
        for name, one in network.state_dict().items()
    }
