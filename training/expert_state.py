"""Checkpoints of processes that hold some experts each: written as one process alone would, and read back by each."""

from typing import Any

import torch
from torch import Tensor, nn

from training.feedforward.expert_parallel import ParallelExperts, gathered, placed_parameters


def gathered_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Trained weights, the optimizer's state and the average with all experts, in every process of the group.

    Parameters
    ----------
    average : by name of the weights; empty where there is none.
    """
    group = _group(network)
    placed = placed_parameters(network)

    def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: gathered(one, group) if name in placed else one for name, one in state.items()}

    weights = {name: one.detach() for name, one in network.named_parameters() if one.requires_grad}
    document = optimizer.state_dict()
    numbers = _numbers(optimizer, placed)
    state = {
        number: {name: gathered(one, group) if _is_cut(one, numbers[number]) else one for name, one in found.items()}
        if number in numbers
        else found
        for number, found in document["state"].items()
    }
    return whole(weights), document | {"state": state}, whole(average)


def own_state(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Tensor],
    optimizer_state: dict[str, Any],
    average: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """What this process holds of what ``gathered_state``, or one process with all experts, wrote."""
    group = _group(network)
    size, rank = torch.distributed.get_world_size(group), torch.distributed.get_rank(group)
    placed = placed_parameters(network)

    def own(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: one.chunk(size)[rank] if name in placed else one for name, one in state.items()}

    numbers = _numbers(optimizer, placed)
    state = {
        number: {
            name: one.chunk(size)[rank] if _is_whole(one, numbers[number], size) else one for name, one in found.items()
        }
        if number in numbers
        else found
        for number, found in optimizer_state["state"].items()
    }
    return own(weights), optimizer_state | {"state": state}, own(average)


def _group(network: nn.Module) -> torch.distributed.ProcessGroup:
    return next(one.group for one in network.modules() if isinstance(one, ParallelExperts))


def _numbers(optimizer: torch.optim.Optimizer, placed: dict[str, nn.Parameter]) -> dict[int, nn.Parameter]:
    """Placed weights by the number that the optimizer's state has them under."""
    held = {id(one) for one in placed.values()}
    ordered = [one for group in optimizer.param_groups for one in group["params"]]
    return {number: one for number, one in enumerate(ordered) if id(one) in held}


def _is_cut(one: Any, parameter: nn.Parameter) -> bool:
    """Whether an entry has a number for each of the weight's, of which other processes have other ones."""
    return isinstance(one, Tensor) and one.shape == parameter.shape


def _is_whole(one: Any, parameter: nn.Parameter, size: int) -> bool:
    return isinstance(one, Tensor) and one.shape == (parameter.shape[0] * size, *parameter.shape[1:])
