"""Every token attends to every allowed token."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from training.attention import (
    ATTENTION,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    for_heads,
    may_attend,
    score_mask,
)


@dataclass(frozen=True, kw_only=True)
class Full(AttentionOptions):
    """No options."""


@ATTENTION.register("full", Full)
class FullAttention(nn.Module):
    """Scaled dot-product attention through torch's fused kernels (Vaswani et al. 2017, section 3.2.1)."""

    def __init__(self, shape: AttentionShape, config: Full) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend; a mask of T x T is made only where padding, documents, a prefix or a bias need one."""
        k_BHTD, v_BHTD = (for_heads(x, q_BHTD.shape[1]) for x in (k_BGTD, v_BGTD))
        if mask.all_real and mask.documents_BT is None and mask.bias is None and mask.order != "prefix":
            return scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=mask.order == "causal")
        tokens = mask.tokens()
        allowed_B1QK = may_attend(tokens, tokens, mask.order)
        distance_B1QK = tokens.index[..., None, :] - tokens.index[..., :, None]
        # Rows differ in nothing that the distance depends on.
        attn_mask = score_mask(allowed_B1QK, mask.bias, distance_B1QK[:1], q_BHTD.shape[1])
        return scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=attn_mask)
