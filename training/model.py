"""One small pre-norm Transformer whose attention, positions and feed-forward are chosen by name.

Shapes: B records, T tokens, C dim, H heads, D head dim, N = real tokens of the batch, K classes.
"""

from dataclasses import dataclass, field
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask, AttentionOptions, AttentionShape, Order, ScoreBias
from training.attention.windows import document_ends
from training.feedforward import FEEDFORWARD
from training.positions import POSITIONS, PositionOptions, PositionShape, Rotation


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
    order : ``encoder`` sees both sides, ``causal`` what came before, ``prefix`` that and all of a given prefix.
    attention, attention_options : a registered attention and its options.
    positions, position_options : registered positions and their options; the attention has to hold for them.
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
    positions: str = "learned"
    position_options: dict[str, Any] = field(default_factory=dict)
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
        FEEDFORWARD[self.feedforward].configured(self.feedforward_options)
        positions: PositionOptions = POSITIONS[self.positions].configured(self.position_options)
        positions.check(self.position_shape())
        attention: AttentionOptions = ATTENTION[self.attention].configured(self.attention_options)
        if self.order not in attention.orders:
            raise ValueError(
                f"attention={self.attention!r} cannot keep to order={self.order!r}, only to "
                f"{', '.join(sorted(attention.orders))}; choose one of these or another attention"
            )
        if positions.acts not in attention.positions:
            held = [name for name, one in POSITIONS.load().items() if one.config.acts in attention.positions]
            raise ValueError(
                f"positions={self.positions!r} does not hold for attention={self.attention!r}; choose one of "
                f"{', '.join(held)}, or another attention"
            )

    def position_shape(self) -> PositionShape:
        """What positions have to know."""
        return PositionShape(
            dim=self.dim,
            num_heads=self.num_heads,
            head_dim=self.dim // self.num_heads,
            max_tokens=self.max_tokens,
            sides=1 if self.order == "causal" else 2,
        )

    def attention_shape(self) -> AttentionShape:
        """What an attention has to know."""
        return AttentionShape(
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            head_dim=self.dim // self.num_heads,
            max_tokens=self.max_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the real tokens of a padded batch stand: everything but attention works on these alone.

    Parameters
    ----------
    mask : who may attend to whom; its ``attends_BT`` gives B and T.
    index_N : (N,) int64, places of the real tokens among the B * T of the batch.
    position_BT : (B, T) int64, places in the document.
    """

    mask: AttentionMask
    index_N: Tensor  # noqa: N815
    position_BT: Tensor  # noqa: N815

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
        attention = ATTENTION[config.attention]
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.output = nn.Linear(config.dim, config.dim)
        self.pattern = attention.member(config.attention_shape(), attention.configured(config.attention_options))

    def forward(self, x_NC: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        """(N, C) to (N, C)."""
        num_records, num_tokens = layout.mask.attends_BT.shape
        heads = (num_records, num_tokens, 3, self.config.num_heads, -1)
        heads_BT3HD = layout.padded(self.query_key_value(x_NC)).view(heads)
        q_BHTD, k_BHTD, v_BHTD = heads_BT3HD.permute(2, 0, 3, 1, 4).unbind()
        if rotation is not None:
            q_BHTD, k_BHTD = (rotation.rotate(x, layout.position_BT) for x in (q_BHTD, k_BHTD))
        out_BHTD = self.pattern(q_BHTD, k_BHTD, v_BHTD, layout.mask)
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

    def forward(self, x_NC: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        """(N, C) to (N, C)."""
        x_NC = x_NC + self.dropout(self.attention(self.attention_norm(x_NC), layout, rotation))
        out_NC: Tensor = x_NC + self.dropout(self.feedforward(self.feedforward_norm(x_NC)))
        return out_NC


class Transformer(nn.Module):
    """Token embeddings and positions, pre-norm blocks, mean pooling over real tokens, linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        positions = POSITIONS[config.positions]
        options = positions.configured(config.position_options)
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = positions.member(config.position_shape(), options)
        self.acts = options.acts
        for embedding in (self.tokens, self.positions):
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Class logits of each record.

        Parameters
        ----------
        input_ids : (B, T) int64, T at most ``max_tokens``.
        attention_mask : (B, T) bool, True at real tokens; at least one a record.
        prefix : (B, T) bool, True at the tokens that all may see; for order ``prefix`` alone, and then needed.

        Returns
        -------
        (B, K) float logits.

        Raises
        ------
        ValueError : the input is longer than the positions the model knows, or the prefix is missing.
        """
        logits: Tensor = self.head(masked_mean(self.hidden(input_ids, attention_mask, prefix=prefix), attention_mask))
        return logits

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        documents: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Normalised states of every token, (B, T, C), zeros at padding.

        Parameters
        ----------
        input_ids, attention_mask, prefix : as ``forward`` takes them.
        documents : (B, T) int64, which document of a packed row each token is of. Tokens see their own document alone,
            and count positions from its start.

        Raises
        ------
        ValueError : as ``forward``, or documents are given to an attention that cannot keep them apart.
        """
        num_tokens = input_ids.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ValueError(f"{num_tokens} tokens exceed max_tokens={self.config.max_tokens}; truncate when encoding")
        layout = self._layout(attention_mask, documents, prefix)
        x_NC = self.tokens(input_ids.flatten()[layout.index_N])
        if self.acts == "input":
            x_NC = x_NC + self.positions(layout.position_BT.flatten()[layout.index_N])
        rotation = cast("Rotation", self.positions) if self.acts == "rotation" else None
        for block in self.blocks:
            x_NC = block(x_NC, layout, rotation)
        return layout.padded(self.norm(x_NC))

    def _layout(self, attention_mask: Tensor, documents: Tensor | None, prefix: Tensor | None) -> Layout:
        index_N = attention_mask.flatten().nonzero().squeeze(-1)
        position_BT = torch.arange(attention_mask.shape[1], device=attention_mask.device).expand_as(attention_mask)
        if documents is not None:
            position_BT = position_BT - document_ends(documents)[0]
        mask = AttentionMask(
            attends_BT=attention_mask,
            order=self.config.order,
            documents_BT=documents,
            prefix_BT=prefix,
            bias=cast("ScoreBias", self.positions) if self.acts == "scores" else None,
            all_real=len(index_N) == attention_mask.numel(),
        )
        return Layout(mask=mask, index_N=index_N, position_BT=position_BT)


def masked_mean(x_BTC: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens of each record, (B, C)."""
    weight_BT1 = attention_mask[..., None].to(x_BTC.dtype)
    return (x_BTC * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """The sum of what the model's layers ask to be added to the training loss; None when none asks."""
    losses = [cast("Tensor", part.auxiliary_loss) for part in model.modules() if hasattr(part, "auxiliary_loss")]
    return torch.stack(losses).sum() if losses else None
