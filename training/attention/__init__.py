"""Attention variants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from catalog.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMask:
    """Who may attend to whom, as a rule rather than a (T, T) matrix, so that sparse members stay sparse.

    Parameters
    ----------
    attends_BT : (B, T) bool, True where a token is real; padding is attended to by nobody.
    order : ``encoder`` sees both sides, ``causal`` sees itself and what came before.
    """

    attends_BT: Tensor  # noqa: N815
    order: Literal["encoder", "causal"] = "encoder"


ATTENTION: Registry[Callable[[Tensor, Tensor, Tensor, AttentionMask, Any], Tensor]] = Registry(
    "attention", "training.attention"
)
"""Contract: ``(q_BHTD, k_BHTD, v_BHTD, mask, config) -> out_BHTD``, scaled by 1/sqrt(D), equal to the softmax over the
keys that the member's pattern and the mask allow. A query without any allowed key gets zeros, never NaN."""
