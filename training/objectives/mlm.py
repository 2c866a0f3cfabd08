"""Hidden tokens."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from training.backbones import Heads
from training.masking import MASKING
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.token_targets import (
    MASK,
    TargetRow,
    batch_of,
    hidden_tokens,
    record_means,
    states,
    token_loss,
    transformer,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mlm:
    """What is hidden, and how.

    Parameters
    ----------
    masking, masking_options : which tokens (registry ``MASKING``), and its options.
    mask_share, random_share : of these, the shares that are replaced by the mask token and by a token drawn from the
        vocabulary; the rest stays as it is. Both in [0, 1], together at most 1.
    """

    masking: str = "rate"
    masking_options: dict[str, Any] = field(default_factory=dict)
    mask_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self) -> None:
        MASKING[self.masking].configured(self.masking_options)
        for name in ("mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1]")
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} must add up to 1 at most"
            )


@OBJECTIVES.register("mlm", Mlm)
class MaskedLanguageModel(Objective):
    """Cross entropy of hidden tokens given all others, in nats a token (Devlin et al. 2019, section 3.1)."""

    def __init__(self, config: Mlm) -> None:
        self.config = config
        self.masking = MASKING[config.masking].configured(config.masking_options)

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, in an order that sees both sides."""
        return Heads(tokens=True, orders=frozenset({"encoder"}))

    def special_tokens(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def batch(self, records: Records) -> Batch:
        """Each record's tokens with some replaced, and at these the true one."""
        return batch_of(records, [self._row(records, place) for place in range(len(records.rows))])

    def _row(self, records: Records, place: int) -> TargetRow:
        ids, tokenizer = np.asarray(records.ids[place]), records.corpus.tokenizer
        hidden, rng = hidden_tokens(records, place, self.config.masking, self.masking)
        at = np.flatnonzero(hidden)
        fate, drawn = rng.random(len(at)), rng.choice(tokenizer.ordinary_ids, len(at))
        masked = fate < self.config.mask_share
        random = ~masked & (fate < self.config.mask_share + self.config.random_share)
        shown = ids.astype(np.int64)
        shown[at[masked]] = tokenizer.token_id(MASK)
        shown[at[random]] = drawn[random]
        return TargetRow(shown, np.where(hidden, ids, IGNORED))

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over hidden tokens."""
        model, labels_RT = transformer(network), tensors["labels"]
        total, each_N = token_loss(model, states(model, tensors), labels_RT)
        return Losses((total,), record_means(each_N, labels_RT != IGNORED, tensors) if each else None)
