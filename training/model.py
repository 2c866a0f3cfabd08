"""One small pre-norm Transformer, chosen by name and number: encoder, causal or prefix; see docs/training_models.md.

Shapes: B records, T tokens, S new tokens, C dim, H heads, G key-value heads, D head dim, N = real tokens of the batch,
K classes or keys, V vocabulary, M tokens of a memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.attention import ATTENTION, AttentionMask, Prepares, ScoreBias
from training.attention.windows import document_ends
from training.blocks import Block, Layout
from training.caches import KeyValueCache
from training.model_config import EmbeddingNorm, ModelConfig, VocabBias
from training.packing import document_means
from training.positions import POSITIONS, Rotation
from training.token_loss import token_cross_entropy

LayerHook = Callable[[int, Tensor], Tensor]
"""Given a layer's number, from 1, and the residual stream behind it, (B, T, C): the stream to go on with."""


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
                nn.init.normal_(embedding.weight, std=config.embedding_std)
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


def masked_mean(x_BTC: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens of each record, (B, C)."""
    weight_BT1 = attention_mask[..., None].to(x_BTC.dtype)
    return (x_BTC * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """The sum of what the model's layers ask to be added to the training loss; None when none asks."""
    losses = [cast("Tensor", part.auxiliary_loss) for part in model.modules() if hasattr(part, "auxiliary_loss")]
    return torch.stack(losses).sum() if losses else None


__all__ = [
    "Block",
    "EmbeddingNorm",
    "ModelConfig",
    "Transformer",
    "VocabBias",
    "auxiliary_loss",
    "masked_mean",
]
