"""What a run computes in."""

import torch

from training.arm import Precision

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions in which products are computed, weights staying in float32."""


def resolved_precision(precision: Precision, device: torch.device) -> str:
    """What is computed in: for ``auto`` bfloat16 where the device multiplies it natively, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = device.type == "cpu" and any(
        # Private names: a torch without them is taken for a processor without the instructions.
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bfloat16" if native else "float32"


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """For float16, whose small gradients would be lost: what multiplies the loss (Micikevicius et al. 2018, 3.2)."""
    return torch.amp.GradScaler(device.type) if precision == "float16" else None
