"""Replaced tokens: a small generator fills hidden places, the model says of every token whether it is the true one."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.backbones import Heads
from training.masking import MASKING
from training.model import ModelConfig, Transformer
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.rows import inputs
from training.token_targets import MASK, hidden_tokens, record_means, states, transformer
from training.tokenizer import START


@dataclass(frozen=True, kw_only=True, slots=True)
class Rtd:
    """What is hidden, who fills it, and how much finding out counts.

    Parameters
    ----------
    masking, masking_options : which tokens are replaced (registry ``MASKING``), and its options.
    generator_share : width and heads of the generator, as a share of the model's, in (0, 1].
    generator_layers : its blocks; 0 means as many as the model has.
    weight : of telling replaced tokens, against the generator's own loss.
    """

    masking: str = "rate"
    masking_options: dict[str, Any] = field(default_factory=dict)
    generator_share: float = 0.25
    generator_layers: int = 0
    weight: float = 50.0

    def __post_init__(self) -> None:
        MASKING[self.masking].configured(self.masking_options)
        if not 0 < self.generator_share <= 1:
            raise ValueError(f"generator_share={self.generator_share} must lie in (0, 1]")
        if self.generator_layers < 0:
            raise ValueError(f"generator_layers={self.generator_layers} must be 0 (the model's) or more")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight={self.weight} must be above 0 and finite")


class Generator(Transformer):
    """A narrow network that shares the token embeddings of another one, and the bias of its head over tokens."""

    def __init__(self, config: ModelConfig, model: Transformer) -> None:
        super().__init__(config)
        self.tokens, self.vocab_bias = model.tokens, model.vocab_bias
        self.narrow = nn.Linear(model.tokens.embedding_dim, config.dim, bias=False)

    def _embedded(self, input_ids_X: Tensor, position_X: Tensor) -> Tensor:
        x_XC = self.narrow(self.tokens(input_ids_X))
        if self.acts == "input":
            x_XC = x_XC + self.positions(position_X.flatten()).view_as(x_XC)
        return cast("Tensor", x_XC)

    def token_logits(self, hidden_XC: Tensor) -> Tensor:
        """Logits (..., V), from the shared embeddings."""
        return F.linear(hidden_XC @ self.narrow.weight, self.tokens.weight, self.vocab_bias)


class Replaced(nn.Module):
    """The model, the generator, and what tells replaced tokens from the model's states."""

    def __init__(self, model: Transformer, config: Rtd) -> None:
        super().__init__()
        self.model = model
        self.generator = Generator(generator_config(model.config, config), model)
        dim = model.config.dim
        self.tell = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))


def generator_config(model: ModelConfig, config: Rtd) -> ModelConfig:
    """The generator's shape: the model's, narrower, with a plain feed-forward of four times its width."""
    num_heads = max(1, round(model.num_heads * config.generator_share))
    head_dim = max(1, round(model.dim * config.generator_share / num_heads))
    # Rotations turn pairs.
    head_dim += head_dim % 2
    return replace(
        model,
        dim=num_heads * head_dim,
        num_heads=num_heads,
        num_layers=config.generator_layers or model.num_layers,
        num_own_layers=0,
        num_kv_heads=0,
        kv_latent_dim=0,
        rope_head_dim=0,
        embedding_dim=0,
        num_classes=0,
        exit_layers=(),
        vocab_head="tied",
        feedforward="dense",
        feedforward_options={"hidden": 4 * num_heads * head_dim},
    )


@OBJECTIVES.register("rtd", Rtd)
class ReplacedTokenDetection(Objective):
    """Telling the tokens that a small generator replaced, in nats a token, besides training the generator (ELECTRA).

    The generator hides tokens and is trained to find them; what it draws stands in their place. Where it draws the true
    token, that counts as not replaced. No gradient flows through the draw. Embeddings of tokens are shared, positions
    are not. Clark et al. (2020), sections 2 and 3.2; hidden places always show the mask to the generator.
    """

    def __init__(self, config: Rtd) -> None:
        self.config = config
        self.masking = MASKING[config.masking].configured(config.masking_options)

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, for the generator, which is its own as is what tells."""
        return Heads(tokens=True, orders=frozenset({"encoder"}))

    def special_tokens(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def network(self, model: nn.Module) -> nn.Module:
        """The model, with a generator."""
        return Replaced(transformer(model), self.config)

    def batch(self, records: Records) -> Batch:
        """Tokens with hidden ones, the true ones (-100 where none is hidden), and a number in [0, 1) for each draw."""
        mask = records.corpus.tokenizer.token_id(MASK)
        shown, labels, draws = [], [], []
        for place, ids in enumerate(records.ids):
            hidden, rng = hidden_tokens(records, place, self.config.masking, self.masking)
            shown.append(np.where(hidden, mask, ids))
            labels.append(np.where(hidden, ids, IGNORED))
            draws.append(rng.integers(0, 2**53, len(ids)))
        tensors = inputs(
            records.corpus, records.ids, masked_ids=(shown, records.corpus.tokenizer.pad_id), labels=(labels, IGNORED),
            draws=(draws, 0),
        )  # fmt: skip
        # All but the start, which is never replaced.
        told_RT = tensors["attention_mask"] & (tensors["input_ids"] != records.corpus.tokenizer.token_id(START))
        return Batch(
            rows=list(records.rows),
            tensors=tensors | {"draws": tensors["draws"].double() / 2**53, "told": told_RT},
            counts=(int((tensors["labels"] != IGNORED).sum()), int(told_RT.sum())),
            num_tokens=tensors["input_ids"].numel(),
        )

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """Two terms: the generator's, over hidden tokens, and telling, over all but the start tokens."""
        parts = cast("Replaced", network)
        labels_RT, told_RT = tensors["labels"], tensors["told"]
        at_RT = labels_RT != IGNORED
        hidden_NC = states(parts.generator, tensors, "masked_ids")[at_RT]
        logits_NV = parts.generator.token_logits(hidden_NC).float()
        found_N = F.cross_entropy(logits_NV, labels_RT[at_RT], reduction="none")
        filled_RT = tensors["input_ids"].clone()
        filled_RT[at_RT] = drawn(logits_NV.detach(), tensors["draws"][at_RT])
        replaced_RT = filled_RT != tensors["input_ids"]
        hidden_RTC = states(parts.model, tensors | {"filled": filled_RT}, "filled")
        score_M = parts.tell(hidden_RTC[told_RT]).squeeze(-1).float()
        told_M = F.binary_cross_entropy_with_logits(score_M, replaced_RT[told_RT].float(), reduction="none")
        weight = self.config.weight
        own = None
        if each:
            own = record_means(found_N, at_RT, tensors) + weight * record_means(told_M, told_RT, tensors)
        return Losses((found_N.sum(), weight * told_M.sum()), own)


def drawn(logits_NV: Tensor, draws_N: Tensor) -> Tensor:
    """A token of each distribution, (N,) int64, by numbers in [0, 1) that were drawn before.

    By the inverse of the cumulated probability: in whichever micro-batch a token stands, it is the same.
    """
    cumulated_NV = torch.softmax(logits_NV.double(), -1).cumsum(-1)
    found_N = torch.searchsorted(cumulated_NV, (draws_N * cumulated_NV[:, -1])[:, None], right=True).squeeze(-1)
    return found_N.clamp(max=logits_NV.shape[-1] - 1)
