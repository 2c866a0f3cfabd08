"""A causal language model that also asks what followed in similar contexts.

Shapes: B records, T tokens, Q = B * T, C dim of a state, K neighbours, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.model import Transformer
from training.retrieval import RETRIEVAL
from training.retrieval.memory import Entries, Memory, MemoryReader, weights_digest
from training.retrieval.search import Precision, nearest_entries
from training.retrieval.votes import check_votes, interpolated, neighbour_proba


@dataclass(frozen=True, kw_only=True, slots=True)
class KnnLm:
    """How neighbours are asked.

    Parameters
    ----------
    num_neighbours : of each context; fewer where the memory has fewer.
    weight : of their votes, in (0, 1); ``best_weight`` finds one on held-out text.
    temperature : divides squared distances; above 0. Longer vectors want a larger one.
    """

    num_neighbours: int = 64
    weight: float = 0.25
    temperature: float = 10.0

    def __post_init__(self) -> None:
        check_votes(self.num_neighbours, self.weight, self.temperature)


class KnnLanguageModel(MemoryReader):
    """The next token's probability, from the network and from the memory's nearest contexts."""

    def __init__(self, model: Transformer, config: KnnLm) -> None:
        super().__init__()
        if model.config.order != "causal" or model.config.vocab_head == "none":
            raise ConfigError(
                f"order={model.config.order!r} with vocab_head={model.config.vocab_head!r} has no next token; knn_lm "
                "needs order 'causal' and a head over tokens"
            )
        self.model, self.config = model, config

    @property
    def source(self) -> str:
        """The network's digest: states of other weights are not comparable."""
        return f"states of {weights_digest(self.model)}"

    @property
    def key_dim(self) -> int:
        """The network's width."""
        return self.model.config.dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logarithms of the next token's probabilities, (B, T, V); those at padding mean nothing."""
        hidden_BTC = self.model.hidden(input_ids, attention_mask)
        log_proba_BTV = self.model.token_logits(hidden_BTC).log_softmax(-1)
        if not self.reads:
            return log_proba_BTV
        mixed = interpolated(log_proba_BTV.flatten(0, 1), self.votes(hidden_BTC.flatten(0, 1)), self.config.weight)
        return mixed.view_as(log_proba_BTV)

    @torch.no_grad()
    def votes(self, hidden_QC: Tensor) -> Tensor:
        """What the neighbours of each state say, (Q, V) float32. No gradient flows into the states."""
        assert self.memory is not None
        distance_QK, entry_QK = nearest_entries(hidden_QC, self.memory.keys, self.config.num_neighbours)
        token = torch.from_numpy(self.memory.values[entry_QK.cpu().numpy(), 0].astype("i8")).to(hidden_QC.device)
        return neighbour_proba(distance_QK, token, self.model.config.vocab_size, self.config.temperature)


@RETRIEVAL.register("knn_lm", KnnLm)
def knn_lm(model: nn.Module, config: KnnLm) -> MemoryReader:
    """Nearest neighbours among contexts vote on the next token (Khandelwal et al. 2020, kNN-LM, section 2).

    A context's vector is the network's last normalised state; the paper takes the last layer's input to its
    feed-forward.
    """
    return KnnLanguageModel(cast("Transformer", model), config)


def remember_contexts(
    model: Transformer,
    rows: Iterable[tuple[Tensor, Tensor]],
    folder: Path,
    *,
    precision: Precision = "float32",
) -> Memory:
    """A memory for ``knn_lm``: every context of the rows, and the token that followed.

    Parameters
    ----------
    model : in evaluation mode for states without dropout; it is not changed.
    rows : (input_ids, attention_mask) of a batch each, (B, T); padding comes after a row's tokens.
    folder : where the memory will lie.
    precision : of the stored states.
    """
    source = KnnLanguageModel(model, KnnLm()).source
    entries = _contexts(model, rows)
    return Memory.write(folder, entries, source=source, dim=model.config.dim, precision=precision)


@torch.no_grad()
def _contexts(model: Transformer, rows: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Entries]:
    for input_ids, attention_mask in rows:
        followed = attention_mask[:, :-1] & attention_mask[:, 1:]
        states = model.hidden(input_ids, attention_mask)[:, :-1][followed]
        yield states.float().cpu().numpy(), input_ids[:, 1:][followed].cpu().numpy()[:, None]
