"""Every token attends to every allowed token."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from catalog.registry import NoConfig
from training.attention import ATTENTION, AttentionMask


@ATTENTION.register("full")
def full(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: AttentionMask, config: NoConfig) -> Tensor:  # noqa: ARG001
    """Scaled dot-product attention through torch's fused kernels (Vaswani et al. 2017, section 3.2.1)."""
    allowed = mask.attends_BT[:, None, None, :]
    if mask.order == "causal":
        num_tokens = q_BHTD.shape[-2]
        allowed = allowed & torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=q_BHTD.device).tril()
    return scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=allowed)
