"""One small pre-norm Transformer whose attention and feed-forward are chosen by name.

Shapes: B records, T tokens, C dim, H heads, D head dim, N = real tokens of the batch, K classes.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask
from training.feedforward import FEEDFORWARD

Order = Literal["encoder", "causal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that fixes the shape of the network.

    Parameters
    ----------
    vocab_size : entries of the token embedding.
    num_classes : outputs of the classification head.
    max_tokens : positions the model knows; longer inputs are refused.
    dim : width of the residual stream; divisible by ``num_heads``.
    num_layers : blocks.
    num_heads : attention heads.
    dropout : share of each block's output dropped in training, in [0, 1).
    order : ``encoder`` or ``causal``.
    attention, attention_options : a registered attention and its options.
    feedforward, feedforward_options : a registered feed-forward and its options.
    """

    vocab_size: int
    num_classes: int
    max_tokens: int = 128
    dim: int = 128
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    order: Order = "encoder"
    attention: str = "full"
    attention_options: dict[str, Any] = field(default_factory=dict)
    feedforward: str = "dense"
    feedforward_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "num_classes", "max_tokens", "dim", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.dim % self.num_heads:
            raise ValueError(f"dim={self.dim} must be a multiple of num_heads={self.num_heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        if self.order not in get_args(Order):
            raise ValueError(f"order={self.order!r} must be one of {', '.join(get_args(Order))}")
        ATTENTION[self.attention].configured(self.attention_options)
        FEEDFORWARD[self.feedforward].configured(self.feedforward_options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the real tokens of a padded batch stand: everything but attention works on these alone.

    Parameters
    ----------
    mask : who may attend to whom; its ``attends_BT`` gives B and T.
    index_N : (N,) int64, places of the real tokens among the B * T of the batch.
    """

    mask: AttentionMask
    index_N: Tensor  # noqa: N815

    def padded(self, x_NC: Tensor) -> Tensor:
        """(N, C) to (B, T, C), zeros at padding."""
        num_records, num_tokens = self.mask.attends_BT.shape
        empty = x_NC.new_zeros(num_records * num_tokens, x_NC.shape[-1])
        return empty.index_copy(0, self.index_N, x_NC).view(num_records, num_tokens, -1)

    def packed(self, x_BTC: Tensor) -> Tensor:
        """(B, T, C) to (N, C)."""
        return x_BTC.flatten(0, 1).index_select(0, self.index_N)


class Attention(nn.Module):
    """Project to heads, attend, project back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.options = ATTENTION[config.attention].configured(config.attention_options)
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.output = nn.Linear(config.dim, config.dim)

    def forward(self, x_NC: Tensor, layout: Layout) -> Tensor:
        """(N, C) to (N, C)."""
        num_records, num_tokens = layout.mask.attends_BT.shape
        heads = (num_records, num_tokens, 3, self.config.num_heads, -1)
        heads_BT3HD = layout.padded(self.query_key_value(x_NC)).view(heads)
        q_BHTD, k_BHTD, v_BHTD = heads_BT3HD.permute(2, 0, 3, 1, 4).unbind()
        out_BHTD = ATTENTION[self.config.attention].member(q_BHTD, k_BHTD, v_BHTD, layout.mask, self.options)
        projected: Tensor = self.output(layout.packed(out_BHTD.transpose(1, 2).flatten(-2)))
        return projected


class Block(nn.Module):
    """Attention, then the feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        feedforward = FEEDFORWARD[config.feedforward]
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.feedforward_norm = nn.LayerNorm(config.dim)
        self.feedforward = feedforward.member(config.dim, feedforward.configured(config.feedforward_options))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_NC: Tensor, layout: Layout) -> Tensor:
        """(N, C) to (N, C)."""
        x_NC = x_NC + self.dropout(self.attention(self.attention_norm(x_NC), layout))
        out_NC: Tensor = x_NC + self.dropout(self.feedforward(self.feedforward_norm(x_NC)))
        return out_NC


class Transformer(nn.Module):
    """Token and learned position embeddings, pre-norm blocks, mean pooling over real tokens, linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.max_tokens, config.dim)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Class logits of each record.

        Parameters
        ----------
        input_ids : (B, T) int64, T at most ``max_tokens``.
        attention_mask : (B, T) bool, True at real tokens; at least one a record.

        Returns
        -------
        (B, K) float logits.

        Raises
        ------
        ValueError : the input is longer than the positions the model knows.
        """
        num_tokens = input_ids.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ValueError(f"{num_tokens} tokens exceed max_tokens={self.config.max_tokens}; truncate when encoding")
        index_N = attention_mask.flatten().nonzero().squeeze(-1)
        mask = AttentionMask(attends_BT=attention_mask, order=self.config.order)
        layout = Layout(mask=mask, index_N=index_N)
        x_NC = self.tokens(input_ids.flatten()[index_N]) + self.positions(index_N % num_tokens)
        for block in self.blocks:
            x_NC = block(x_NC, layout)
        logits: Tensor = self.head(masked_mean(layout.padded(self.norm(x_NC)), attention_mask))
        return logits


def masked_mean(x_BTC: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens of each record, (B, C)."""
    weight_BT1 = attention_mask[..., None].to(x_BTC.dtype)
    return (x_BTC * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """The sum of what the model's layers ask to be added to the training loss; None when none asks."""
    losses = [cast("Tensor", part.auxiliary_loss) for part in model.modules() if hasattr(part, "auxiliary_loss")]
    return torch.stack(losses).sum() if losses else None
