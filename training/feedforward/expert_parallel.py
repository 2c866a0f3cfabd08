"""Experts spread over processes: each holds some of them, and tokens travel to the experts that their gate chose.

Everything else of the network is a copy in each process. A layer sends its routed rows by one uneven all-to-all,
computes the rows that came, and sends them back (Lepikhin et al. 2020, GShard, section 3.2; without a capacity, so that
no token is dropped). Shapes as in ``moe_topk``, W processes, R rows that came.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from catalog.errors import ConfigError
from training.feedforward.moe_topk import GroupedExperts, MoeFeedForward, autocast_dtype


class ParallelExperts(GroupedExperts):
    """This process's experts, by the names that all have where they are together, and the way to the others'."""

    def __init__(self, experts: GroupedExperts, group: dist.ProcessGroup) -> None:
        super().__init__(1, 1, 1)
        size, rank = dist.get_world_size(group), dist.get_rank(group)
        self.group = group
        for name, one in experts.named_parameters():
            own = nn.Parameter(one.detach().chunk(size)[rank].clone(), requires_grad=one.requires_grad)
            if own.requires_grad:
                # An expert gets the gradients of every process's tokens; the mean over processes is what the rest gets.
                cast("Any", own).register_hook(_divided(size))
            setattr(self, name, own)

    def goes_blocked(self, x_NC: Tensor) -> bool:  # noqa: ARG002
        """Never: rows have to travel first."""
        return False

    def forward(self, x_SC: Tensor, counts_E: Tensor) -> Tensor:
        """As ``GroupedExperts``; every process of the group has to call it, with as many rows as it likes."""
        size = dist.get_world_size(self.group)
        counts_WL = counts_E.view(size, -1)
        came_WL = torch.empty_like(counts_WL)
        dist.all_to_all_single(came_WL, counts_WL.contiguous(), group=self.group)
        sent, came = counts_WL.sum(1).tolist(), came_WL.sum(1).tolist()
        # In the type that experts compute in, which may be half as many bytes.
        rows_RC = _exchanged(x_SC.to(autocast_dtype(x_SC)), sent, came, self.group)
        # Rows came by process and then by expert; the experts want them by expert.
        num_local = came_WL.shape[1]
        expert_R = torch.arange(num_local, device=x_SC.device).repeat(size).repeat_interleave(came_WL.flatten())
        order_R = expert_R.sort(stable=True).indices
        out_RC = super().forward(rows_RC.index_select(0, order_R), came_WL.sum(0))
        back_R = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R), device=x_SC.device))
        return _exchanged(out_RC.index_select(0, back_R), came, sent, self.group)


def check_placing(model: nn.Module, size: int) -> None:
    """Refuse what cannot be shared out evenly over ``size`` processes.

    Raises
    ------
    ConfigError : a layer's experts are no multiple, or there are none.
    """
    layers = expert_layers(model)
    if not layers:
        raise ConfigError("there are no experts to place; set feedforward to moe_topk, or take strategy ddp")
    for name, layer in layers.items():
        if layer.config.num_experts % size:
            raise ConfigError(
                f"num_experts={layer.config.num_experts} of {name!r} must be a multiple of the mesh's {size} "
                "processes; change either"
            )


def place_experts(model: nn.Module, mesh: DeviceMesh) -> list[str]:
    """Leave in each process its share of every layer's experts, in place.

    Call it before the optimizer is made. Who averages the other parameters' gradients over processes has to leave these
    out (``DistributedDataParallel``: ``_set_params_and_buffers_to_ignore_for_model``): their gradients are the mean
    over processes as they come.

    Parameters
    ----------
    model : equal in all processes.
    mesh : of one dimension, the expert one.

    Returns
    -------
    Names of the parameters that differ between processes.

    Raises
    ------
    ConfigError : the mesh has several dimensions, or a layer's experts cannot be shared out evenly.
    """
    if mesh.ndim != 1:
        raise ConfigError(f"a mesh of {mesh.ndim} dimensions says not where experts go; take one: mesh['expert']")
    check_placing(model, mesh.size())
    for layer in expert_layers(model).values():
        assert isinstance(layer.experts, GroupedExperts)
        layer.experts = ParallelExperts(layer.experts, mesh.get_group())
    return list(placed_parameters(model))


def placed_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, what differs between processes; nothing of a model whose experts were not placed."""
    placed = {id(one) for part in model.modules() if isinstance(part, ParallelExperts) for one in part.parameters()}
    return {name: one for name, one in model.named_parameters() if id(one) in placed}


def gather_experts(model: nn.Module) -> None:
    """Undo ``place_experts`` in every process: all experts everywhere."""
    for layer in expert_layers(model).values():
        parallel = layer.experts
        if not isinstance(parallel, ParallelExperts):
            continue
        whole = GroupedExperts(1, 1, 1)
        for name, own in parallel.named_parameters():
            parts = gathered(own.detach(), parallel.group)
            setattr(whole, name, nn.Parameter(parts, requires_grad=own.requires_grad))
        layer.experts = whole


def gathered(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """What each process has a part of, in one piece, in all."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own.contiguous(), group=group)
    return torch.cat(parts)


def expert_layers(model: nn.Module) -> dict[str, MoeFeedForward]:
    """The layers that have experts, by name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, MoeFeedForward)}


def _divided(size: int) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient / size


class _Exchange(torch.autograd.Function):
    """Rows to and from all processes; gradients go the way back."""

    @staticmethod
    def forward(ctx: Any, x_SC: Tensor, sent: list[int], came: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.came, ctx.group = sent, came, group
        out_RC = x_SC.new_empty(sum(came), x_SC.shape[1])
        dist.all_to_all_single(out_RC, x_SC.contiguous(), came, sent, group=group)
        return out_RC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient_RC = gradients[0].contiguous()
        back_SC = gradient_RC.new_empty(sum(ctx.sent), gradient_RC.shape[1])
        dist.all_to_all_single(back_SC, gradient_RC, ctx.sent, ctx.came, group=ctx.group)
        return back_SC, None, None, None


_exchanged: Callable[[Tensor, list[int], list[int], dist.ProcessGroup], Tensor] = _Exchange.apply
