"""Several processes that train one model: what each knows of the others, and how the network is spread over them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.feedforward.expert_parallel import (
    check_placing,
    expert_layers,
    gather_experts,
    place_experts,
    placed_parameters,
)
from training.model import Block, auxiliary_loss
from training.objectives import Batch, Objective, objective_of
from training.optimizers import OPTIMIZERS

Strategy = Literal["none", "ddp", "fsdp2", "expert"]


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, of which this is one. Every process calls every method, in the same order.

    Parameters
    ----------
    rank, size : number of this process, and how many there are.
    strategy : ``none`` for one process alone; ``ddp`` gives each the whole model and sums gradients; ``fsdp2`` gives
        each a part of every weight, gradient and optimizer state; ``expert`` gives each some of every layer's experts,
        and does with the rest as ``ddp``.
    device : where tensors that are exchanged lie.
    """

    rank: int = 0
    size: int = 1
    strategy: Strategy = "none"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.strategy == "none" and self.size > 1:
            raise ConfigError(f"strategy='none' cannot train in {self.size} processes; choose ddp, fsdp2 or expert")

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
        if self.strategy == "expert":
            check_placing(network, self.size)
        if self.strategy not in ("fsdp2", "expert"):
            return
        # A process whose texts are longer has more segments, and would wait for weights that the others do not give.
        if self.strategy == "fsdp2" and objective_of(arm).heads(2).segment_tokens:
            raise ConfigError(
                "strategy='fsdp2' cannot train on segments of texts, of which a process has more than another; leave "
                "segment_tokens out, or use ddp"
            )
        if getattr(OPTIMIZERS[arm.optimizer].config, "needs_whole", False):
            raise ConfigError(
                f"strategy={self.strategy!r} cannot train with optimizer={arm.optimizer!r}, whose averages are over "
                "whole weights, of which a process has a part; use adamw, or strategy ddp"
            )
        if arm.precision == "float16":
            raise ConfigError(f"strategy={self.strategy!r} does not scale losses; set precision to bfloat16 or float32")

    def parts(self, network: nn.Module) -> dict[str, int]:
        """Over how many processes each weight is spread, by name; those that every process has whole are left out."""
        if self.strategy == "fsdp2":
            return {name: self.size for name, _ in network.named_parameters()}
        if self.strategy != "expert":
            return {}
        layers = expert_layers(network).items()
        return {
            f"{name}.experts.{one}": self.size for name, part in layers for one, _ in part.experts.named_parameters()
        }

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
        if not self.is_alone:
            for layer in expert_layers(losses.network).values():
                layer.group = torch.distributed.group.WORLD
        if self.strategy == "expert":
            from torch.distributed.device_mesh import init_device_mesh

            mesh = init_device_mesh(self.device.type, (self.size,), mesh_dim_names=("expert",))
            own = [f"network.{name}" for name in place_experts(losses.network, mesh)]
            left_out = nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
            left_out(losses, own)  # type: ignore[no-untyped-call]
        if self.strategy in ("ddp", "expert"):
            return nn.parallel.DistributedDataParallel(losses, find_unused_parameters=has_unused)
        if self.strategy == "fsdp2":
            from torch.distributed.fsdp import fully_shard

            for part in losses.network.modules():
                if isinstance(part, Block):
                    fully_shard(part)
            fully_shard(losses)
        return losses

    def reunite(self, network: nn.Module) -> None:
        """Take back what ``spread`` did to layers of experts."""
        gather_experts(network)
        for layer in expert_layers(network).values():
            layer.group = None

    def clip(self, network: nn.Module, max_norm: float) -> float:
        """Scale all gradients down to a norm of ``max_norm`` together, over all processes; the norm that they had."""
        trained = [one for one in network.parameters() if one.requires_grad]
        if self.strategy != "expert":
            return _whole(nn.utils.clip_grad_norm_(trained, max_norm)).item()
        placed = {id(one) for one in placed_parameters(network).values()}
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for one in trained:
            if one.grad is not None:
                parts[id(one) in placed].append(one.grad)
        everywhere, own = (float(nn.utils.get_total_norm(grads)) for grads in parts)
        norm = math.sqrt(everywhere**2 + self.summed([own**2])[0])
        nn.utils.clip_grads_with_norm_(trained, max_norm, torch.tensor(norm, device=self.device))
        return norm

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
        share : what losses of layers weigh by, see ``whole_counts``.
        """
        losses = self.objective.losses(self.network, tensors, each=each)
        weighted = losses.mean(counts, whole)
        extra = auxiliary_loss(self.network)
        return weighted if extra is None else weighted + extra * share, weighted.detach(), losses.each


def whole_counts(world: World, micro_batches: Sequence[Batch], batch_size: int) -> tuple[list[int], list[float]]:
    """What parts of a loss are divided by and weighed by, so that all parts add up to it.

    Returns
    -------
    Targets of each term in the whole batch; and of each micro-batch the records by those of the whole batch, as the
    mean over processes, since losses of layers are over all processes' tokens.
    """
    own = [sum(term) for term in zip(*(one.counts for one in micro_batches), strict=True)]
    totals = world.summed([*own, *(len(one.rows) for one in micro_batches)])
    return [int(one) for one in totals[: len(own)]], [one / world.size / batch_size for one in totals[len(own) :]]


def _whole(norm: Tensor) -> Tensor:
    """A norm of which every process has a part, in one piece."""
    from torch.distributed.tensor import DTensor

    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """Every entry of the state, on the CPU and in one piece; processes that hold parts of it give them to all."""
    from torch.distributed.tensor import DTensor

    return {
        name: (one.full_tensor() if isinstance(one, DTensor) else one).detach().cpu()
        for name, one in network.state_dict().items()
    }
