"""Weights in 8 bits.

It saves bytes, not time. Measured on 2 shared cores (AVX512, AMX; torch 2.13, torchao 0.18, eager, single runs):
linear layers alone kept 0.9 to 1.0 times the float32 throughput with weight-only int8, and 0.6 to 0.85 times with
activations quantized too, so weights only. This member as a whole ran at 0.7 to 0.95 times. torchao's own embedding
turns the whole table back to float at every call (40 ms for 30 000 rows), hence ours.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from training.compression import COMPRESSION
from training.feedforward.moe_topk import GroupedExperts
from training.third_party import quietly

_KEPT = ("head", "gate")
"""Layers left in float32: a few kilobytes whose rounding would change decisions."""
_LARGEST = 127


class Int8Embedding(nn.Module):
    """An embedding table in int8 with one float32 scale a row; only the rows asked for are turned back to float."""

    weight_VC: Tensor  # noqa: N815
    scale_V1: Tensor  # noqa: N815

    def __init__(self, weight_VC: Tensor) -> None:
        super().__init__()
        scale_V1 = weight_VC.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
        self.register_buffer("weight_VC", (weight_VC / scale_V1).round().to(torch.int8))
        self.register_buffer("scale_V1", scale_V1)

    def forward(self, ids: Tensor) -> Tensor:
        """Float32 rows of the given ids."""
        return self.weight_VC[ids] * self.scale_V1[ids]


@COMPRESSION.register("int8")
def int8(model: nn.Module) -> nn.Module:
    """Linear layers, experts and embeddings in int8, one scale an output channel; activations stay in float32."""
    with quietly():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

    copy = deepcopy(model).eval().requires_grad_(requires_grad=False)
    for name, module in list(copy.named_modules()):
        if isinstance(module, GroupedExperts):
            copy.set_submodule(name, module.separated())
        elif isinstance(module, nn.Embedding):
            copy.set_submodule(name, Int8Embedding(module.weight.detach()))

    def chosen(module: nn.Module, name: str) -> bool:
        is_head = name.rpartition(".")[2] in _KEPT or name.startswith("exits.")
        return isinstance(module, nn.Linear) and not is_head

    with quietly():
        quantize_(copy, Int8WeightOnlyConfig(), filter_fn=chosen)
    return copy
