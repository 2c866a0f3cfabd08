"""Our own small Transformer, trained from nothing, with a vocabulary learned from the records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.attention import ATTENTION, Order
from training.backbones import BACKBONES, Heads
from training.memory import check_weights, free_memory
from training.model import EmbeddingNorm, ModelConfig, Transformer, VocabBias
from training.segments import check_segments
from training.tokenizer import TextTokenizer, train_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Small:
    """Size and parts of the network; see ``ModelConfig`` for the fields it shares.

    Parameters
    ----------
    vocab_size : upper limit of the learned vocabulary, at least 258.
    exit_layers : layers, counted from 1, behind which another classification head is trained, so that a text can leave
        there; for objective ``classification``.
    """

    vocab_size: int = 8000
    dim: int = 128
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    order: Order = "encoder"
    attention: str = "full"
    attention_options: dict[str, Any] = field(default_factory=dict)
    positions: str = "learned"
    position_options: dict[str, Any] = field(default_factory=dict)
    feedforward: str = "dense"
    feedforward_options: dict[str, Any] = field(default_factory=dict)
    embedding_dim: int = 0
    embedding_norm: EmbeddingNorm = "none"
    embedding_std: float = 0.02
    num_own_layers: int = 0
    num_kv_heads: int = 0
    kv_latent_dim: int = 0
    rope_head_dim: int = 0
    vocab_bias: VocabBias = "own"
    exit_layers: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.vocab_size < 258:
            raise ValueError(f"vocab_size={self.vocab_size} must be at least 258: every byte and two special tokens")
        layers = self.exit_layers
        if not isinstance(layers, list | tuple) or any(
            isinstance(one, bool) or not isinstance(one, int) for one in layers
        ):
            raise ValueError(f"exit_layers={layers!r} must be a list of layers, counted from 1")
        self.model_config(vocab_size=self.vocab_size, heads=Heads(num_classes=1), max_tokens=1)

    def model_config(self, *, vocab_size: int, heads: Heads, max_tokens: int) -> ModelConfig:
        """The network's config once vocabulary, heads and positions are known."""
        return ModelConfig(
            vocab_size=vocab_size,
            num_classes=heads.num_classes,
            vocab_head="tied" if heads.tokens else "none",
            max_tokens=max_tokens,
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropout=self.dropout,
            order=self.order,
            attention=self.attention,
            attention_options=self.attention_options,
            positions=self.positions,
            position_options=self.position_options,
            feedforward=self.feedforward,
            feedforward_options=self.feedforward_options,
            embedding_dim=self.embedding_dim,
            embedding_norm=self.embedding_norm,
            embedding_std=self.embedding_std,
            num_own_layers=self.num_own_layers,
            num_kv_heads=self.num_kv_heads,
            kv_latent_dim=self.kv_latent_dim,
            rope_head_dim=self.rope_head_dim,
            vocab_bias=self.vocab_bias,
            exit_layers=tuple(self.exit_layers),
        )


class SmallBackbone:
    """A ``Transformer`` and a byte-level BPE of the training texts."""

    def tokenizer(self, texts: Sequence[str], config: Small) -> TextTokenizer:
        """Learn the vocabulary from the training texts."""
        return train_tokenizer(texts, vocab_size=config.vocab_size)

    def check(self, arm: ArmConfig, heads: Heads, config: Small) -> None:
        """It has every head, in the order that was chosen; most attentions take several texts a row."""
        if arm.packing == "rows" and not ATTENTION[config.attention].config.packs:
            packs = [name for name, one in ATTENTION.load().items() if one.config.packs]
            raise ConfigError(
                f"packing='rows' does not go with attention={config.attention!r}, which mixes all texts of a row; set "
                f"packing to none, or attention to one of {', '.join(sorted(packs))}"
            )
        if config.exit_layers and not heads.exits:
            raise ConfigError(
                f"exit_layers={list(config.exit_layers)} have no effect with this objective, which trains no head "
                "behind earlier layers; leave them out, or train objective classification"
            )
        if config.order not in heads.orders:
            raise ConfigError(
                f"backbone order={config.order!r} is none that this objective can be trained in; set order in "
                f"backbone_options to {' or '.join(sorted(heads.orders))}"
            )
        if heads.segment_tokens:
            check_segments(arm, heads, config)

    def build(self, *, vocab_size: int, heads: Heads, max_tokens: int, config: Small) -> nn.Module:
        """A network with random weights.

        Raises
        ------
        ConfigError : its weights are more than the machine has memory for.
        """
        made = partial(Transformer, config.model_config(vocab_size=vocab_size, heads=heads, max_tokens=max_tokens))
        check_weights(made, free_memory(torch.device("cpu")))
        return made()

    def adapt(self, model: nn.Module, config: Small) -> nn.Module:  # noqa: ARG002
        """Everything is trained."""
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Nothing to undo."""
        return model


BACKBONES.register("small", Small)(SmallBackbone())
