"""Every token attends to every allowed token."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask, AttentionOptions, AttentionShape
from training.attention.by_document import Plan, planned


@dataclass(frozen=True, kw_only=True)
class Full(AttentionOptions):
    """No options."""


@ATTENTION.register("full", Full)
class FullAttention(nn.Module):
    """Scaled dot-product attention through torch's fused kernels (Vaswani et al. 2017, section 3.2.1).

    Documents of packed rows are attended to apart, and padding is hidden by the order or by a mask over keys alone.
    """

    def __init__(self, shape: AttentionShape, config: Full) -> None:  # noqa: ARG002
        super().__init__()
        self.num_heads = shape.num_heads

    def prepared(self, mask: AttentionMask) -> AttentionMask:
        """The rule with what all layers of a forward pass do by it."""
        return replace(mask, plan=planned(mask, self.num_heads))

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend."""
        plan = mask.plan if isinstance(mask.plan, Plan) else planned(mask, self.num_heads)
        return plan.attend(q_BHTD, k_BGTD, v_BGTD)
