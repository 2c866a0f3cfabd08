"""The weights' average over the steps: what is measured and saved where an arm asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_FIRST = 10
"""Before the first hundred steps or so the average forgets faster, else it would remember the random start: after t
steps it keeps ``(1 + t) / (10 + t)`` at most, as the TensorFlow function of that name does."""


class WeightAverage:
    """An exponential moving average of all trained weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    Parameters
    ----------
    model : whose trained weights are averaged, from what they are now.
    decay : share of the average that a step keeps, in (0, 1).

    Attributes
    ----------
    weights : the average by parameter name, of the parameters' shapes, types and devices.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.weights: dict[str, Tensor] = {name: one.detach().clone() for name, one in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` finished updates."""
        keeps = min(self.decay, (1 + step) / (_FIRST + step))
        for name, average in self.weights.items():
            average.lerp_(self._live[name], 1 - keeps)

    @torch.no_grad()
    def load(self, stored: dict[str, Tensor]) -> None:
        """Put a stored average in place."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert stored.keys() == self.weights.keys()
        for name, average in self.weights.items():
            whole = stored[name]
            if isinstance(average, DTensor):
                whole = distribute_tensor(whole, average.device_mesh, average.placements)
            average.copy_(whole)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Lend the model the average for a while; its own weights come back to the bit."""
        kept = {name: one.detach().clone() for name, one in self._live.items()}
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._live.items():
                    parameter.copy_(kept[name])

    @torch.no_grad()
    def put(self) -> None:
        """Give the model the average for good."""
        for name, parameter in self._live.items():
            parameter.copy_(self.weights[name])
