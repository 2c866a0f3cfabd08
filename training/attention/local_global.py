"""A sliding window, and a few tokens that see and are seen by all."""

from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from training.attention import (
    ATTENTION,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    Backend,
    for_heads,
    uses_flex,
)
from training.attention.flex_backend import flex, order_links, rule_of, window_links, window_rule
from training.attention.windows import Window, first_of_each, windowed


@dataclass(frozen=True, kw_only=True)
class LocalGlobal(AttentionOptions):
    """The pattern.

    Parameters
    ----------
    window : tokens that each token sees on either side; on the left alone in causal order.
    num_global_tokens : first tokens of each document that see and are seen by all of it.
    backend : ``plain`` blocks, ``flex`` kernels, or ``auto``: flex on CUDA.
    """

    window: int = 128
    num_global_tokens: int = 16
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1")
        if self.num_global_tokens < 0:
            raise ValueError(f"num_global_tokens={self.num_global_tokens} must be 0 or more")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend={self.backend!r} must be one of {', '.join(get_args(Backend))}")


@ATTENTION.register("local_global", LocalGlobal)
class LocalGlobalAttention(nn.Module):
    """A sliding window and global tokens (Beltagy et al. 2020, Longformer, section 3.1), in one projection for both."""

    def __init__(self, shape: AttentionShape, config: LocalGlobal) -> None:  # noqa: ARG002
        super().__init__()
        self.config = config

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend within the window and to global tokens."""
        count = self.config.num_global_tokens
        shared_BT = first_of_each(mask.documents_BT, mask.attends_BT, count) if count else None
        tokens = mask.tokens()
        if uses_flex(self.config.backend, q_BHTD):
            num_tokens, size = q_BHTD.shape[2], self.config.window
            links = window_links(num_tokens, size, shared_BT, q_BHTD.device) & order_links(mask.order, tokens)
            rules = (rule_of(tokens, mask.order), window_rule(size, shared_BT))
            return flex(q_BHTD, k_BGTD, v_BGTD, rules, links, mask.bias)
        k_BHTD, v_BHTD = (for_heads(x, q_BHTD.shape[1]) for x in (k_BGTD, v_BGTD))
        window = Window(order=mask.order, size=self.config.window, shared_BT=shared_BT)
        return windowed(q_BHTD, k_BHTD, v_BHTD, tokens, window, mask.bias)
