"""What a Transformer is built of: attention with heads of keys and values of its own or latent, and blocks.

Shapes: B records, T tokens, S new tokens, C dim, H heads, G key-value heads, D head dim, N = real tokens of the batch,
K classes or keys, M tokens of a memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask, ScoreBias
from training.caches import Kept, KeyValueCache, Stored, attend_to_kept, in_order
from training.feedforward import FEEDFORWARD
from training.model_config import ModelConfig
from training.positions import Rotation

Turn = Callable[[Tensor], Tensor]
"""Rotates vectors by their positions, or gives them back as they are."""


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
