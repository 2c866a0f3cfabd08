"""One small pre-norm Transformer, chosen by name and number: encoder, causal or prefix; see docs/training_models.md.

Shapes: B records, T tokens, S new tokens, C dim, H heads, G key-value heads, D head dim, N = real tokens of the batch,
K classes or keys, V vocabulary, M tokens of a memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask, AttentionOptions, AttentionShape, Order, Prepares, ScoreBias
from training.attention.windows import document_ends
from training.caches import Kept, KeyValueCache, Stored, attend_to_kept, in_order
from training.feedforward import FEEDFORWARD
from training.packing import document_means
from training.positions import POSITIONS, PositionOptions, PositionShape, Rotation
from training.token_loss import token_cross_entropy

VocabHead = Literal["none", "tied", "own"]
VocabBias = Literal["own", "none"]
EmbeddingNorm = Literal["none", "layer"]
LayerHook = Callable[[int, Tensor], Tensor]
"""Given a layer's number, from 1, and the residual stream behind it, (B, T, C): the stream to go on with."""
Turn = Callable[[Tensor], Tensor]
"""Rotates vectors by their positions, or gives them back as they are."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the real tokens of a padded batch stand: everything but attention works on these alone.

    Parameters
    ----------
    mask : who may attend to whom; its ``attends_BT`` gives B and T.
    index_N : (N,) int64, places of the real tokens among the B * T of the batch.
    position_N : (N,) int64, their places in their documents.
    """

    mask: AttentionMask
    index_N: Tensor  # noqa: N815
    position_N: Tensor  # noqa: N815

    def padded(self, x_NX: Tensor) -> Tensor:
        """(N, ...) to (B, T, ...), zeros at padding."""
        size = self.mask.attends_BT.shape
        if self.mask.all_real:
            return torch.unflatten(x_NX, 0, size)
        empty = x_NX.new_zeros(size.numel(), *x_NX.shape[1:])
        return torch.unflatten(empty.index_copy(0, self.index_N, x_NX), 0, size)

    def packed(self, x_BTX: Tensor) -> Tensor:
        """(B, T, ...) to (N, ...)."""
        flat = x_BTX.flatten(0, 1)
        return flat if self.mask.all_real else flat.index_select(0, self.index_N)


class Attention(nn.Module):
    """Project to heads, attend, project back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        attention = ATTENTION[config.attention]
        self.config = config
        self.make_projections(config)
        self.output = nn.Linear(config.dim, config.dim)
        self.pattern = attention.member(config.attention_shape(), attention.configured(config.attention_options))

    def make_projections(self, config: ModelConfig) -> None:
        """Make what ``project`` needs."""
        shape = config.attention_shape()
        self.widths = [count * config.head_dim for count in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)]
        self.query_key_value = nn.Linear(config.dim, sum(self.widths))

    def project(self, x_BTC: Tensor) -> tuple[Tensor, Stored]:
        """Queries (B, H, T, D) before rotation, and what a cache keeps of the tokens: two of (B, G, T, D)."""
        q, k, v = (
            torch.unflatten(x, -1, (-1, self.config.head_dim)).transpose(1, 2)
            for x in self.query_key_value(x_BTC).split(self.widths, -1)
        )
        return q, (k, v)

    def turn(self, q_BHTD: Tensor, turn: Turn) -> Tensor:
        """Rotate the queries."""
        return turn(q_BHTD)

    def expand(self, stored: Stored, turn: Turn) -> Stored:
        """Rotated keys and values (B, G, T, D) of what was stored."""
        return turn(stored[0]), stored[1]

    def forward(self, x_NC: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        """(N, C) to (N, C)."""
        q, stored = self.project(x_NC[None])
        turn = _turn(rotation, layout.position_N[None])
        heads = (self.turn(q, turn), *self.expand(stored, turn))
        # Real tokens stand in one row here; attention takes a row a record.
        q_BHTD, k_BGTD, v_BGTD = (layout.padded(x[0].transpose(0, 1)).transpose(1, 2) for x in heads)
        out_BHTD = self.pattern(q_BHTD, k_BGTD, v_BGTD, layout.mask)
        projected: Tensor = self.output(layout.packed(out_BHTD.transpose(1, 2)).flatten(1))
        return projected

    def extend(self, x_BSC: Tensor, cache: KeyValueCache, rotation: Rotation | None, bias: ScoreBias | None) -> Tensor:
        """Attend from new tokens to themselves and to what the cache keeps, (B, S, C) to (B, S, C)."""
        q, stored = self.project(x_BSC)
        kept = cache.extend(stored, sees_ahead=self.config.order == "prefix")
        q = self.turn(q, _turn(rotation, kept.query_position))
        k, v = self.expand(kept.stored, _turn(rotation, kept.key_position))
        out, weights = attend_to_kept(q, k, v, kept, bias, with_weights=cache.needs_weights)
        if weights is not None:
            cache.observe(weights)
        projected: Tensor = self.output(out.transpose(1, 2).flatten(-2))
        return projected

    def recall(self, x_BMTC: Tensor, num_new: int, rotation: Rotation | None, bias: ScoreBias | None) -> Tensor:
        """Attend from the last ``num_new`` tokens to all of a row, in causal order: (B, M + T, C) to (B, T, C)."""
        q, stored = self.project(x_BMTC)
        position_MT = torch.arange(x_BMTC.shape[1], device=x_BMTC.device)
        query_T = position_MT[-num_new:]
        q = self.turn(q[:, :, -num_new:], _turn(rotation, query_T[None]))
        k, v = self.expand(stored, _turn(rotation, position_MT[None]))
        kept = Kept(
            stored=stored,
            query_position=query_T[None],
            key_position=position_MT[None],
            allowed=in_order(query_T, position_MT, first=False, sees_ahead=False),
        )
        out, _ = attend_to_kept(q, k, v, kept, bias, with_weights=False)
        projected: Tensor = self.output(out.transpose(1, 2).flatten(-2))
        return projected


class LatentAttention(Attention):
    """Keys and values of all heads from one narrow vector a token, which is all that a cache keeps (DeepSeek-V2, 2.1).

    A rotation does not pass through the expansion: rotated parts of queries and of a key shared by all heads stand
    beside it. Queries are not compressed.
    """

    def make_projections(self, config: ModelConfig) -> None:
        """Make what ``project`` needs."""
        head_dim, rotated = config.head_dim, config.rope_head_dim
        self.query = nn.Linear(config.dim, config.num_heads * (head_dim + rotated))
        self.compress = nn.Linear(config.dim, config.kv_latent_dim + rotated)
        self.latent_norm = nn.LayerNorm(config.kv_latent_dim)
        self.decompress = nn.Linear(config.kv_latent_dim, config.num_heads * 2 * head_dim)

    def project(self, x_BTC: Tensor) -> tuple[Tensor, Stored]:
        """Queries (B, H, T, D + R) before rotation; the latent vector and the shared key before rotation, one head."""
        width = self.config.head_dim + self.config.rope_head_dim
        q = torch.unflatten(self.query(x_BTC), -1, (-1, width)).transpose(1, 2)
        latent, key = torch.split(self.compress(x_BTC), [self.config.kv_latent_dim, self.config.rope_head_dim], -1)
        return q, (latent[:, None], key[:, None])

    def turn(self, q_BHTD: Tensor, turn: Turn) -> Tensor:
        """Rotate the queries' part that is for it."""
        if not self.config.rope_head_dim:
            return q_BHTD
        fixed, rotated = torch.split(q_BHTD, [self.config.head_dim, self.config.rope_head_dim], -1)
        return torch.cat([fixed, turn(rotated)], -1)

    def expand(self, stored: Stored, turn: Turn) -> Stored:
        """Keys (B, H, T, D + R) and values (B, H, T, D) of the latent vectors."""
        latent, key = stored
        both = torch.unflatten(
            self.decompress(self.latent_norm(latent))[:, 0], -1, (self.config.num_heads, -1)
        ).transpose(1, 2)
        k, v = both.chunk(2, -1)
        if self.config.rope_head_dim:
            k = torch.cat([k, turn(key).expand(-1, self.config.num_heads, -1, -1)], -1)
        return k, v


class Block(nn.Module):
    """Attention, then the feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        feedforward = FEEDFORWARD[config.feedforward]
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = LatentAttention(config) if config.kv_latent_dim else Attention(config)
        self.feedforward_norm = nn.LayerNorm(config.dim)
        self.feedforward = feedforward.member(config.dim, feedforward.configured(config.feedforward_options))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_NC: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        """(N, C) to (N, C)."""
        x_NC = x_NC + self.dropout(self.attention(self.attention_norm(x_NC), layout, rotation))
        return self._feed(x_NC)

    def extend(self, x_BSC: Tensor, cache: KeyValueCache, rotation: Rotation | None, bias: ScoreBias | None) -> Tensor:
        """The same for new tokens behind those of a cache, (B, S, C) to (B, S, C)."""
        x_BSC = x_BSC + self.dropout(self.attention.extend(self.attention_norm(x_BSC), cache, rotation, bias))
        return self._feed(x_BSC.flatten(0, 1)).view_as(x_BSC)

    def recall(
        self, x_BTC: Tensor, memory_BMC: Tensor | None, rotation: Rotation | None, bias: ScoreBias | None
    ) -> Tensor:
        """The same for a segment behind what this layer read in earlier ones, (B, T, C) to (B, T, C)."""
        row_BMTC = x_BTC if memory_BMC is None else torch.cat([memory_BMC, x_BTC], 1)
        attended = self.attention.recall(self.attention_norm(row_BMTC), x_BTC.shape[1], rotation, bias)
        x_BTC = x_BTC + self.dropout(attended)
        return self._feed(x_BTC.flatten(0, 1)).view_as(x_BTC)

    def _feed(self, x_NC: Tensor) -> Tensor:
        out_NC: Tensor = x_NC + self.dropout(self.feedforward(self.feedforward_norm(x_NC)))
        return out_NC


class Transformer(nn.Module):
    """Token embeddings and positions, pre-norm blocks, a head for the mean of real tokens, one for each, or both."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        positions = POSITIONS[config.positions]
        options = positions.configured(config.position_options)
        self.acts = options.acts
        self.tokens = nn.Embedding(config.vocab_size, config.embedding_dim or config.dim)
        self.positions = positions.member(config.position_shape(), options)
        for embedding in (self.tokens, self.positions):
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.02)
        if config.embedding_dim:
            self.widen = nn.Linear(config.embedding_dim, config.dim, bias=False)
        if config.embedding_norm == "layer":
            self.embedding_norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.own_layers))
        self.norm = nn.LayerNorm(config.dim)
        if config.num_classes:
            self.head = nn.Linear(config.dim, config.num_classes)
        if config.exit_layers:
            self.exits = nn.ModuleDict(
                {
                    str(layer): nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, config.num_classes))
                    for layer in config.exit_layers
                }
            )
        if config.vocab_head == "own":
            self.vocab_weight = nn.Parameter(torch.empty_like(self.tokens.weight))
            nn.init.normal_(self.vocab_weight, std=0.02)
        if config.vocab_head != "none":
            biased = config.vocab_bias == "own"
            self.vocab_bias = nn.Parameter(torch.zeros(config.vocab_size)) if biased else None

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
        ValueError : the input is longer than the positions the model knows, the prefix is missing, or there is no
            classification head.
        """
        if not self.config.num_classes:
            raise ValueError("num_classes=0: the model has no classification head; use token_logits")
        logits: Tensor = self.head(masked_mean(self.hidden(input_ids, attention_mask, prefix=prefix), attention_mask))
        return logits

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        documents: Tensor | None = None,
        prefix: Tensor | None = None,
        behind: LayerHook | None = None,
    ) -> Tensor:
        """Normalised states of every token, (B, T, C), zeros at padding.

        Parameters
        ----------
        input_ids, attention_mask, prefix : as ``forward`` takes them.
        documents : (B, T) int64, which document of a packed row each token is of. Tokens see their own document alone,
            and count positions from its start.
        behind : what is done to the residual stream behind each layer.

        Raises
        ------
        ValueError : as ``forward``, or documents are given to an attention that cannot keep them apart.
        """
        layout = self._layout(input_ids, attention_mask, documents, prefix)
        *_, x_NC = self._layers(input_ids, layout, behind)
        return layout.padded(self.norm(x_NC))

    def exit_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        prefix: Tensor | None = None,
        *,
        documents: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Class logits (B, K) behind each of ``exit_layers`` and behind the last layer, one after the other.

        A caller that stops asking saves the layers that follow: early exit (Teerapittayanon et al. 2016, BranchyNet).
        Arguments as of ``hidden``; of packed rows there are logits for each document.
        """
        layout = self._layout(input_ids, attention_mask, documents, prefix)

        def pooled(x_NC: Tensor) -> Tensor:
            x_BTC = layout.padded(x_NC)
            return masked_mean(x_BTC, attention_mask) if documents is None else document_means(x_BTC, documents)

        for layer, x_NC in enumerate(self._layers(input_ids, layout), start=1):
            if layer in self.config.exit_layers:
                norm, head = cast("nn.Sequential", self.exits[str(layer)])
                yield head(pooled(norm(x_NC)))
        yield self.head(pooled(self.norm(x_NC)))

    def token_logits(self, hidden_XC: Tensor) -> Tensor:
        """Logits (..., V) over the vocabulary, of what ``hidden`` gives.

        Raises
        ------
        ValueError : the config has no token head.
        """
        hidden_XC, weight = self._before_vocabulary(hidden_XC)
        return F.linear(hidden_XC, weight, self.vocab_bias)

    def token_losses(self, hidden_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross entropy of ``token_logits`` and labels (N,), and each token's; see ``token_cross_entropy``.

        Raises
        ------
        ValueError : the config has no token head.
        """
        hidden_NC, weight = self._before_vocabulary(hidden_NC)
        return token_cross_entropy(hidden_NC, weight, self.vocab_bias, labels_N)

    def _before_vocabulary(self, hidden_XC: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.vocab_head == "none":
            raise ValueError("vocab_head='none': the model has no head over tokens; use 'tied' or 'own'")
        if self.config.embedding_dim:
            # Back through the matrix that widened it, so that factorising saves on this side too.
            hidden_XC = hidden_XC @ self.widen.weight
        return hidden_XC, self.tokens.weight if self.config.vocab_head == "tied" else self.vocab_weight

    def extend(self, input_ids: Tensor, caches: Sequence[KeyValueCache]) -> Tensor:
        """Normalised states of new tokens behind those that the caches have seen, (B, S, C).

        Parameters
        ----------
        input_ids : (B, S) int64, all real.
        caches : one a layer, of ``training.caches``; they take in the new tokens. In order ``prefix`` the first call's
            tokens are the prefix.

        Raises
        ------
        ValueError : an encoder, an attention that a cache cannot stand for, or more tokens than positions.
        """
        self.check_cache(caches[0])
        start = caches[0].num_seen
        end = start + input_ids.shape[1]
        if end > self.config.max_tokens and not (caches[0].renumbers and self.acts != "input"):
            raise ValueError(f"{end} tokens exceed max_tokens={self.config.max_tokens}; generate fewer")
        position_BS = torch.arange(start, end, device=input_ids.device).expand_as(input_ids)
        x_BSC = self.embedded(input_ids, position_BS)
        bias = cast("ScoreBias", self.positions) if self.acts == "scores" else None
        for layer, cache in enumerate(caches):
            x_BSC = self._block(layer).extend(x_BSC, cache, self._rotation, bias)
        normalised: Tensor = self.norm(x_BSC)
        return normalised

    def segment(
        self, input_ids: Tensor, memory: Sequence[Tensor] | None, memory_tokens: int
    ) -> tuple[Tensor, list[Tensor]]:
        """States of one segment of a long text, which attends to what each layer read of the segments before.

        Parameters
        ----------
        input_ids : (B, T) int64, all real.
        memory : what the call for the segment before returned; None at the start of a text.
        memory_tokens : tokens to remember, at least 1. No gradient flows into them.

        Returns
        -------
        Normalised states (B, T, C), and the memory for the next segment: a (B, M, C) a layer.

        Raises
        ------
        ValueError : the order is not causal, the attention not full, or positions are absolute.

        References
        ----------
        Dai et al. (2019), Transformer-XL, section 3.2; positions are whichever of ours are relative.
        """
        if memory_tokens < 1:
            raise ValueError(f"memory_tokens={memory_tokens} must be at least 1; without memory use hidden")
        if self.config.order != "causal" or self.config.attention != "full" or self.acts == "input":
            raise ValueError(
                f"order={self.config.order!r}, attention={self.config.attention!r}, positions="
                f"{self.config.positions!r}: recurrence needs causal order, full attention and relative positions "
                "(rope, alibi, relative, none)"
            )
        bias = cast("ScoreBias", self.positions) if self.acts == "scores" else None
        x_BTC = self.embedded(input_ids, input_ids)
        remembered = []
        for layer in range(self.config.num_layers):
            earlier = memory[layer] if memory else None
            row = x_BTC if earlier is None else torch.cat([earlier, x_BTC], 1)
            remembered.append(row[:, -memory_tokens:].detach())
            x_BTC = self._block(layer).recall(x_BTC, earlier, self._rotation, bias)
        return self.norm(x_BTC), remembered

    def check_cache(self, cache: KeyValueCache) -> None:
        """Refuse a cache that would compute something else than the model was trained as."""
        if self.config.order == "encoder":
            raise ValueError("order='encoder' sees later tokens, which no cache has; use order 'causal' or 'prefix'")
        options = ATTENTION[self.config.attention].configured(self.config.attention_options)
        if not cache.stands_for(self.config.attention, options):
            raise ValueError(
                f"attention={self.config.attention!r} cannot be continued from this cache; generate without one, or "
                "see docs/training_models.md for which caches go with which attention"
            )

    @property
    def _rotation(self) -> Rotation | None:
        return cast("Rotation", self.positions) if self.acts == "rotation" else None

    def _block(self, layer: int) -> Block:
        return cast("Block", self.blocks[layer * self.config.own_layers // self.config.num_layers])

    def embedded(self, input_ids_X: Tensor, position_X: Tensor) -> Tensor:
        """What enters the first block, (..., C), of token ids and their positions."""
        x_XC = self.tokens(input_ids_X)
        if self.config.embedding_dim:
            x_XC = self.widen(x_XC)
        if self.acts == "input":
            x_XC = x_XC + self.positions(position_X.flatten()).view_as(x_XC)
        if self.config.embedding_norm == "layer":
            x_XC = self.embedding_norm(x_XC)
        return x_XC  # type: ignore[no-any-return]

    def _layers(self, input_ids: Tensor, layout: Layout, behind: LayerHook | None = None) -> Iterator[Tensor]:
        """The residual stream (N, C) behind every layer."""
        x_NC = self.embedded(input_ids.flatten()[layout.index_N], layout.position_N)
        for layer in range(self.config.num_layers):
            x_NC = self._block(layer)(x_NC, layout, self._rotation)
            if behind is not None:
                x_NC = layout.packed(behind(layer + 1, layout.padded(x_NC)))
            yield x_NC

    def _layout(
        self, input_ids: Tensor, attention_mask: Tensor, documents: Tensor | None, prefix: Tensor | None
    ) -> Layout:
        num_tokens = input_ids.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ValueError(f"{num_tokens} tokens exceed max_tokens={self.config.max_tokens}; truncate when encoding")
        index_N = attention_mask.flatten().nonzero().squeeze(-1)
        position_N = index_N % num_tokens
        if documents is not None:
            position_N = position_N - document_ends(documents)[0].flatten()[index_N]
        mask = AttentionMask(
            attends_BT=attention_mask,
            order=self.config.order,
            documents_BT=documents,
            prefix_BT=prefix,
            bias=cast("ScoreBias", self.positions) if self.acts == "scores" else None,
            all_real=len(index_N) == attention_mask.numel(),
        )
        pattern = self._block(0).attention.pattern
        if isinstance(pattern, Prepares):
            mask = pattern.prepared(mask)
        return Layout(mask=mask, index_N=index_N, position_N=position_N)


def _turn(rotation: Rotation | None, position: Tensor) -> Turn:
    """Rotate (B, H, T, D) by positions (1 or B, T), or (B, H, T) where heads differ."""
    if rotation is None:
        return lambda x: x

    def turn(x_BHTD: Tensor) -> Tensor:
        if position.ndim == 2:
            return rotation.rotate(x_BHTD, position)
        rows = rotation.rotate(x_BHTD.flatten(0, 1)[:, None], position.flatten(0, 1))
        return rows.view_as(x_BHTD)

    return turn


def masked_mean(x_BTC: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens of each record, (B, C)."""
    weight_BT1 = attention_mask[..., None].to(x_BTC.dtype)
    return (x_BTC * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """The sum of what the model's layers ask to be added to the training loss; None when none asks."""
    losses = [cast("Tensor", part.auxiliary_loss) for part in model.modules() if hasattr(part, "auxiliary_loss")]
    return torch.stack(losses).sum() if losses else None
