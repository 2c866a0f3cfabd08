"""What a training will hold in memory, said before it starts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from catalog.errors import ConfigError
from training.arm import ArmConfig

_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where the two versions of control groups say their limit, what is used, and which of that are files not in use."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes that one process holds at the height of a step, beyond what it holds already.

    Parameters
    ----------
    gradients, optimizer, average : of the trained weights, which are there already.
    fixed : what a forward pass keeps however small the batch is, such as weights in half precision.
    per_record : what it keeps for the longest record, until the backward pass has used it.
    records : records in memory at a time.
    """

    gradients: int
    optimizer: int
    average: int
    fixed: int
    per_record: int
    records: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.gradients + self.optimizer + self.average + self.fixed + self.per_record * self.records

    def to_json(self) -> dict[str, int]:
        """Its parts and their sum as plain numbers, in bytes but for ``records``."""
        return {
            "total_bytes": self.total,
            "gradients_bytes": self.gradients,
            "optimizer_bytes": self.optimizer,
            "average_bytes": self.average,
            "activations_bytes": self.per_record * self.records,
            "other_bytes": self.fixed,
            "records": self.records,
        }

    def __str__(self) -> str:
        return (
            f"{_gib(self.total)} more memory (gradients {_gib(self.gradients)}, optimizer {_gib(self.optimizer)}, "
            f"average {_gib(self.average)}, activations {_gib(self.per_record * self.records)} of {self.records} "
            f"records at a time, other {_gib(self.fixed)})"
        )

    def check(self, arm: ArmConfig, free_bytes: int) -> None:
        """Refuse what does not fit.

        Raises
        ------
        ConfigError : with what is needed for what, what is free, and what would fit.
        """
        if self.total <= free_bytes:
            return
        static = self.total - self.per_record * self.records
        fits = max(0, free_bytes - static) // max(1, self.per_record)
        if fits:
            remedy = f"set micro_batch_size to {fits} or less"
            if arm.recompute == "none":
                remedy += ", or recompute to blocks"
        else:
            remedy = "make the model or max_tokens smaller"
            if arm.optimizer != "adafactor":
                remedy += ", or take optimizer adafactor"
        raise ConfigError(f"arm {arm.name!r} needs about {self} and {_gib(free_bytes)} are free; {remedy}")


def memory_need(
    arm: ArmConfig,
    network: nn.Module,
    forward: Callable[[int], Any],
    *,
    records: int,
    parts: Mapping[str, int] = MappingProxyType({}),
) -> MemoryNeed:
    """Measure what a step of this arm will keep, by forward passes of one and of two records.

    Parameters
    ----------
    forward : makes the loss of so many records, as long as they come.
    records : records in memory at a time.
    parts : by name, processes over which a weight's gradient and optimizer state are spread; 1 where it is left out.
    """
    trained = [(one, parts.get(name, 1)) for name, one in network.named_parameters() if one.requires_grad]
    weights = sum(one.numel() * one.element_size() // count for one, count in trained)
    with _counting_kept(network) as one_record:
        forward(1)
    with _counting_kept(network) as two_records:
        forward(2)
    per_record = max(0, sum(two_records.values()) - sum(one_record.values()))
    return MemoryNeed(
        gradients=weights,
        optimizer=sum(_state_bytes(arm, one) // count for one, count in trained),
        average=weights if arm.ema_decay else 0,
        fixed=max(0, sum(one_record.values()) - per_record),
        per_record=per_record,
        records=records,
    )


def check_weights(build: Callable[[], nn.Module], free_bytes: int) -> None:
    """Refuse a network whose weights alone do not fit, before any of them is there.

    Parameters
    ----------
    build : makes the network; it is called on torch's ``meta`` device, where tensors have a shape and no memory.
    free_bytes : what the machine has free, where weights are drawn before they go to a device.

    Raises
    ------
    ConfigError : with what is needed, what is free, and what makes it smaller.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]), _Undrawn():
        network = build()
    sizes = [(one.numel(), one.numel() * one.element_size()) for one in [*network.parameters(), *network.buffers()]]
    needed = sum(size for _, size in sizes)
    if needed > free_bytes:
        raise ConfigError(
            f"the model's {sum(count for count, _ in sizes):,} weights need {_gib(needed)} and {_gib(free_bytes)} are "
            "free, before gradients and optimizer; make it smaller (dim, num_layers, vocab_size, num_experts)"
        )


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where they would be filled: on ``meta`` that does nothing but import much of torch."""

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        filled = args[0] if args else given.get("tensor")
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        return filled if in_place and isinstance(filled, Tensor) and filled.is_meta else func(*args, **given)


def free_memory(device: torch.device) -> int:
    """Bytes that a process can still take on a device; of a container's own limit, where it has one."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limits = [found for one in _CGROUPS if (found := container_memory(*one)) is not None]
    return min([free, *limits])


def container_memory(folder: Path, limit_name: str, used_name: str, files_name: str) -> int | None:
    """Bytes that a control group can still take; None where it has no limit, or is no group."""
    try:
        limit, used = (int((folder / one).read_text()) for one in (limit_name, used_name))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Files in the page cache make way for what is needed, but count as used.
    return max(0, limit - used + int(counts.get(files_name, 0)))


@contextmanager
def _counting_kept(network: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes by storage of what a forward pass keeps for the backward one, but for the weights."""
    weights = {one.untyped_storage().data_ptr() for one in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}
    # Held until the end: a storage that is freed would lend its address to another.
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept
    alive.clear()


def _state_bytes(arm: ArmConfig, one: nn.Parameter) -> int:
    """What the optimizer keeps: two numbers a weight, or a row and a column a matrix."""
    if arm.optimizer != "adafactor":
        return 2 * one.numel() * one.element_size()
    return 4 * (one.numel() // one.shape[-1] + one.numel() // one.shape[-2] if one.ndim >= 2 else one.numel())


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
