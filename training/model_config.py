"""What fixes the shape of a Transformer, and which shapes there are none of."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from training.attention import ATTENTION, AttentionOptions, AttentionShape, Order
from training.feedforward import FEEDFORWARD
from training.positions import POSITIONS, PositionOptions, PositionShape

VocabHead = Literal["none", "tied", "own"]
VocabBias = Literal["own", "none"]
EmbeddingNorm = Literal["none", "layer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that fixes the shape of the network.

    Parameters
    ----------
    vocab_size : entries of the token embedding.
    num_classes : outputs of the classification head; 0 for none.
    max_tokens : longest row, and positions of the learned kind; longer inputs are refused.
    dim : width of the residual stream; divisible by ``num_heads``.
    num_layers : blocks that a token goes through.
    num_heads : attention heads.
    dropout : share of each block's output dropped in training, in [0, 1).
    order : ``encoder`` sees both sides, ``causal`` what came before, ``prefix`` that and all of a given prefix.
    attention, attention_options : a registered attention and its options.
    positions, position_options : registered positions and their options; the attention has to hold for them.
    feedforward, feedforward_options : a registered feed-forward and its options.
    embedding_dim : width of the token embedding, widened to ``dim`` by a matrix; 0 embeds in ``dim`` itself.
    embedding_norm : ``layer`` normalises what enters the first block (Devlin et al. 2019). Embeddings start 50 times
        smaller; without it blocks drown what token it is.
    embedding_std : standard deviation of the embeddings that training starts from. With a norm behind them it says how
        far updates of a given rate turn them: the larger, the longer they stay what they were.
    num_own_layers : blocks with weights of their own, each run ``num_layers / num_own_layers`` times; 0 means all.
    num_kv_heads : heads of keys and values, which query heads share in groups; 0 means one each, 1 is multi-query.
    kv_latent_dim : width of the vector that all keys and values of a token are computed from; 0 for none.
    rope_head_dim : with that, width of the rotated part of each head, which all heads share in keys.
    vocab_head : how ``token_logits`` come about: from the embedding's own weights (``tied``), from others, or not.
    vocab_bias : whether each entry of the vocabulary has a bias of its own; GPT-2 and most decoders have none.
    exit_layers : layers, counted from 1, behind which another classification head stands.
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
    embedding_dim: int = 0
    embedding_norm: EmbeddingNorm = "none"
    embedding_std: float = 0.02
    num_own_layers: int = 0
    num_kv_heads: int = 0
    kv_latent_dim: int = 0
    rope_head_dim: int = 0
    vocab_head: VocabHead = "none"
    vocab_bias: VocabBias = "own"
    exit_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_tokens", "dim", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_classes", "num_own_layers", "num_kv_heads", "kv_latent_dim", "rope_head_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.dim % self.num_heads:
            raise ValueError(f"dim={self.dim} must be a multiple of num_heads={self.num_heads}")
        if not 0 < self.embedding_std < float("inf"):
            raise ValueError(f"embedding_std={self.embedding_std} must be above 0 and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        kinds = {"order": Order, "vocab_head": VocabHead, "vocab_bias": VocabBias, "embedding_norm": EmbeddingNorm}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(kind))}")
        self._check_heads()
        self._check_sharing()
        FEEDFORWARD[self.feedforward].configured(self.feedforward_options)
        positions: PositionOptions = POSITIONS[self.positions].configured(self.position_options)
        self._check_latent(positions)
        positions.check(self.position_shape())
        self._check_attention(positions)

    def _check_heads(self) -> None:
        if self.num_classes == 0 and self.vocab_head == "none":
            raise ValueError("num_classes=0 with vocab_head='none' leaves no output; give either")
        unordered = tuple(sorted(set(self.exit_layers))) != tuple(self.exit_layers)
        if unordered or any(not 0 < one < self.num_layers for one in self.exit_layers):
            raise ValueError(
                f"exit_layers={self.exit_layers} must rise and lie in [1, {self.num_layers - 1}]: the last layer has a "
                "head already"
            )
        if self.exit_layers and not self.num_classes:
            raise ValueError(f"exit_layers={self.exit_layers} have no effect with num_classes=0; leave them out")

    def _check_sharing(self) -> None:
        if not 0 <= self.embedding_dim < self.dim:
            raise ValueError(
                f"embedding_dim={self.embedding_dim} must lie in [0, dim={self.dim}): 0 embeds in dim itself"
            )
        if self.num_own_layers and (self.num_own_layers >= self.num_layers or self.num_layers % self.num_own_layers):
            raise ValueError(
                f"num_own_layers={self.num_own_layers} must divide num_layers={self.num_layers} and be less; 0 shares "
                "none"
            )
        if self.num_kv_heads and (self.num_kv_heads >= self.num_heads or self.num_heads % self.num_kv_heads):
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads} and be less; 0 shares none"
            )

    def _check_latent(self, positions: PositionOptions) -> None:
        rotates = positions.acts == "rotation"
        if self.kv_latent_dim and self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} has no effect with kv_latent_dim={self.kv_latent_dim}; choose one"
            )
        if self.kv_latent_dim and rotates and self.rope_head_dim < 2:
            raise ValueError(
                f"rope_head_dim={self.rope_head_dim} must be at least 2 for positions={self.positions!r} with "
                f"kv_latent_dim={self.kv_latent_dim}: what comes from the latent vector cannot be rotated"
            )
        if self.rope_head_dim and not (self.kv_latent_dim and rotates):
            raise ValueError(
                f"rope_head_dim={self.rope_head_dim} has no effect without kv_latent_dim and rotating positions"
            )

    def _check_attention(self, positions: PositionOptions) -> None:
        attention: AttentionOptions = ATTENTION[self.attention].configured(self.attention_options)
        if self.order not in attention.orders:
            raise ValueError(
                f"attention={self.attention!r} cannot keep to order={self.order!r}, only to "
                f"{', '.join(sorted(attention.orders))}; choose one of these or another attention"
            )
        acts = attention.holds_for()
        if positions.acts not in acts:
            held = [name for name, one in POSITIONS.load().items() if one.config.acts in acts]
            given = f" with attention_options={self.attention_options}" if self.attention_options else ""
            raise ValueError(
                f"positions={self.positions!r} does not hold for attention={self.attention!r}{given}; choose one of "
                f"{', '.join(held)}, or another attention"
            )

    @property
    def head_dim(self) -> int:
        """Width of a head's values, and of its queries and keys without a rotated part of their own."""
        return self.dim // self.num_heads

    @property
    def own_layers(self) -> int:
        """Blocks with weights of their own."""
        return self.num_own_layers or self.num_layers

    def position_shape(self) -> PositionShape:
        """What positions have to know."""
        return PositionShape(
            dim=self.dim,
            num_heads=self.num_heads,
            head_dim=self.rope_head_dim or self.head_dim,
            max_tokens=self.max_tokens,
            sides=1 if self.order == "causal" else 2,
        )

    def attention_shape(self) -> AttentionShape:
        """What an attention has to know."""
        return AttentionShape(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self.head_dim + self.rope_head_dim,
            max_tokens=self.max_tokens,
        )
