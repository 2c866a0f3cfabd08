"""Keys and values projected along the row: attention to a fixed number of mixtures of tokens.

Shapes: P projected tokens; the rest as in ``training.attention``.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from training.attention import (
    ATTENTION,
    Acts,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    Order,
    for_heads,
)


@dataclass(frozen=True, kw_only=True)
class Linformer(AttentionOptions):
    """Size of the projection.

    Parameters
    ----------
    num_projected : mixtures of tokens that every query attends to.
    """

    # A mixture of tokens holds late ones: it has no place in an order, no position of its own and no document.
    orders: ClassVar[frozenset[Order]] = frozenset({"encoder"})
    positions: ClassVar[frozenset[Acts]] = frozenset({"input", "nothing"})
    packs: ClassVar[bool] = False
    num_projected: int = 64

    def __post_init__(self) -> None:
        if self.num_projected < 1:
            raise ValueError(f"num_projected={self.num_projected} must be at least 1")


@ATTENTION.register("linformer", Linformer)
class LinformerAttention(nn.Module):
    """Softmax over learned mixtures of keys (Wang et al. 2020, Linformer, section 4), projections shared by all heads.

    For encoders alone. Padding is zeroed before it is mixed, so that records depend on none.
    """

    def __init__(self, shape: AttentionShape, config: Linformer) -> None:
        super().__init__()
        # Mixtures of independent tokens keep their variance.
        self.key_projection = nn.Parameter(torch.empty(config.num_projected, shape.max_tokens))
        self.value_projection = nn.Parameter(torch.empty(config.num_projected, shape.max_tokens))
        for weight in (self.key_projection, self.value_projection):
            nn.init.normal_(weight, std=1 / math.sqrt(shape.max_tokens))

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend to the mixtures.

        Raises
        ------
        ValueError : the order is not ``encoder``, or the row holds several documents.
        """
        if mask.order != "encoder":
            raise ValueError(f"order={mask.order!r}: linformer mixes late tokens into all; use order 'encoder'")
        if mask.documents_BT is not None:
            raise ValueError("linformer mixes all documents of a packed row; turn packing off or use another attention")
        real_BT1 = mask.attends_BT[:, None, :, None]
        num_tokens = q_BHTD.shape[2]
        k_BGPD = self.key_projection[:, :num_tokens].to(k_BGTD.dtype) @ (k_BGTD * real_BT1)
        v_BGPD = self.value_projection[:, :num_tokens].to(v_BGTD.dtype) @ (v_BGTD * real_BT1)
        k_BHPD, v_BHPD = (for_heads(x, q_BHTD.shape[1]) for x in (k_BGPD, v_BGPD))
        return scaled_dot_product_attention(q_BHTD, k_BHPD, v_BHPD)
