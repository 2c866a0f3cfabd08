"""Checkpoints that every process writes its own part of, and that any number of processes reads back."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

METADATA = ".metadata"
"""The file by which such a checkpoint is known; it says which part lies where."""


def save_sharded(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> None:
    """Write weights, optimizer state and average, by name, each process what it holds."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with _quiet():
        save(_state(network, optimizer, average), checkpoint_id=folder)


def load_sharded(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> None:
    """Put them in place, however many processes wrote them and read them; one alone needs no group."""
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    with _quiet():
        state = _state(network, optimizer, average)
        load(state, checkpoint_id=folder, no_dist=not torch.distributed.is_initialized())
        set_state_dict(
            network, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=_options()
        )
    # The average was read in place.


def load_sharded_weights(folder: Path, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole weights of a checkpoint, or of its average where it has one, read by one process without a group.

    Parameters
    ----------
    parameters : by name, of the shapes and types that are stored.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with _quiet():
        stored = FileSystemReader(folder).read_metadata().state_dict_metadata
        part = "average" if any(name.startswith("average.") for name in stored) else "model"
        state = {part: {name: torch.empty_like(one) for name, one in parameters.items()}}
        load(state, checkpoint_id=folder, no_dist=True)
    return state[part]


def load_whole(
    weights: dict[str, Any], optimizer_state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Spread what one process wrote in one piece.

    Parameters
    ----------
    weights : trained weights by name.
    optimizer_state : as ``state_dict`` gives it: by number, in the order of the groups.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    whole = StateDictOptions(full_state_dict=True, strict=False, ignore_frozen_params=True)
    names = {id(one): name for name, one in network.named_parameters()}
    ordered = [names[id(one)] for group in optimizer.param_groups for one in group["params"]]
    groups = [
        group | {"params": [ordered[number] for number in group["params"]]} for group in optimizer_state["param_groups"]
    ]
    state = {ordered[number]: one for number, one in optimizer_state["state"].items()}
    with _quiet():
        set_model_state_dict(network, weights, options=whole)
        set_optimizer_state_dict(network, optimizer, {"state": state, "param_groups": groups}, options=whole)


def _options() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(ignore_frozen_params=True, strict=False)


def _state(network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, state = get_state_dict(network, optimizer, options=_options())
    return {"model": model, "optimizer": state, "average": average}


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch warns of its own deprecated parts while it saves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
