"""The model as trained: what every compression is compared with."""

from copy import deepcopy

from torch import nn

from training.compression import COMPRESSION


@COMPRESSION.register("none")
def none(model: nn.Module) -> nn.Module:
    """An unchanged copy."""
    return deepcopy(model).eval()
