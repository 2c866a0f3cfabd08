"""A classifier that also asks what similar records are labelled.

Shapes: B records, T tokens, D numbers of a vector, K neighbours, V classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError, DataError
from training.model import Transformer, masked_mean
from training.retrieval import RETRIEVAL
from training.retrieval.memory import Entries, Memory, MemoryReader, weights_digest
from training.retrieval.search import Precision, nearest_entries
from training.retrieval.votes import check_votes, interpolated, neighbour_proba


@dataclass(frozen=True, kw_only=True, slots=True)
class KnnClassifier:
    """How neighbours are asked.

    Parameters
    ----------
    num_neighbours : of each record; fewer where the memory has fewer.
    weight : of their votes, in (0, 1); ``best_weight`` finds one on held-out records.
    temperature : divides squared distances; above 0. Vectors of length 1 are at most 4 apart.
    encoder : name of what makes the vectors, such as one of the catalog's encoders, which are then given beside the
        tokens; empty for the classifier's own mean state.
    """

    num_neighbours: int = 16
    weight: float = 0.5
    temperature: float = 0.1
    encoder: str = ""

    def __post_init__(self) -> None:
        check_votes(self.num_neighbours, self.weight, self.temperature)


class RetrievalClassifier(MemoryReader):
    """A record's class, from the network and from the labels of the nearest records."""

    def __init__(self, model: nn.Module, config: KnnClassifier) -> None:
        super().__init__()
        if not config.encoder and not isinstance(model, Transformer):
            raise ConfigError(
                f"encoder='' takes the vectors of our own Transformer, not of {type(model).__name__}; name the encoder "
                "and give its vectors"
            )
        self.model, self.config = model, config

    @property
    def source(self) -> str:
        """The encoder, or the network's digest."""
        return encoder_source(self.config.encoder) if self.config.encoder else f"means of {weights_digest(self.model)}"

    @property
    def key_dim(self) -> int | None:
        """The network's width; an encoder's is seen from its vectors."""
        return None if self.config.encoder else self._transformer.config.dim

    @property
    def _transformer(self) -> Transformer:
        assert isinstance(self.model, Transformer)
        return self.model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, vectors_BD: Tensor | None = None) -> Tensor:
        """Logarithms of the classes' probabilities, (B, V).

        Parameters
        ----------
        input_ids, attention_mask : as the classifier takes them.
        vectors_BD : the records' vectors by ``encoder``, and only with one.

        Raises
        ------
        DataError : vectors without an encoder, none with one, or of another size than the memory's.
        """
        logits_BV: Tensor = self.model(input_ids, attention_mask)
        log_proba_BV = logits_BV.log_softmax(-1)
        if not self.reads:
            return log_proba_BV
        if (vectors_BD is None) == bool(self.config.encoder):
            wanted = f"its vectors of encoder {self.config.encoder!r}" if self.config.encoder else "no vectors"
            raise DataError(f"this reader wants with a batch {wanted}; encoder={self.config.encoder!r}")
        questions = self.means(input_ids, attention_mask) if vectors_BD is None else vectors_BD
        return interpolated(log_proba_BV, self.votes(questions, log_proba_BV.shape[1]), self.config.weight)

    @torch.no_grad()
    def means(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The network's own vectors, (B, C): the mean state that its head reads."""
        return masked_mean(self._transformer.hidden(input_ids, attention_mask), attention_mask)

    @torch.no_grad()
    def votes(self, vectors_BD: Tensor, num_classes: int) -> Tensor:
        """What the neighbours of each vector are labelled, (B, V) float32.

        Raises
        ------
        DataError : the memory holds labels beyond the classes.
        """
        assert self.memory is not None
        distance_BK, entry_BK = nearest_entries(vectors_BD, self.memory.keys, self.config.num_neighbours)
        label_BK = torch.from_numpy(self.memory.values[entry_BK.cpu().numpy(), 0].astype("i8"))
        for label in (int(label_BK.min()), int(label_BK.max())):
            if not 0 <= label < num_classes:
                raise DataError(
                    f"the memory holds label {label}, the classifier's lie in [0, {num_classes - 1}]; write the memory "
                    "with its classes"
                )
        label_BK = label_BK.to(vectors_BD.device)
        return neighbour_proba(distance_BK, label_BK, num_classes, self.config.temperature)


@RETRIEVAL.register("knn_classifier", KnnClassifier)
def knn_classifier(model: nn.Module, config: KnnClassifier) -> MemoryReader:
    """Nearest labelled records vote on a record's class, beside the classifier (Khandelwal et al. 2020, equation 3)."""
    return RetrievalClassifier(model, config)


def encoder_source(encoder: str) -> str:
    """What a memory of an encoder's vectors says made them."""
    return f"encoder {encoder}"


def remember_records(
    folder: Path,
    entries: Iterable[Entries],
    *,
    encoder: str,
    dim: int,
    precision: Precision = "float32",
) -> Memory:
    """A memory for ``knn_classifier`` of the catalog's vectors.

    Parameters
    ----------
    folder : where the memory will lie.
    entries : vectors (m, D) and labels (m, 1), as indices into the classifier's classes, part by part.
    encoder, dim : what made the vectors, and their size.
    precision : of the stored vectors.
    """
    return Memory.write(folder, entries, source=encoder_source(encoder), dim=dim, precision=precision)


def remember_means(
    model: Transformer,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    folder: Path,
    *,
    precision: Precision = "float32",
) -> Memory:
    """A memory for ``knn_classifier`` of the classifier's own vectors.

    Parameters
    ----------
    model : in evaluation mode; it is not changed.
    batches : input_ids (B, T), attention_mask (B, T) and labels (B,) of labelled records.
    folder, precision : of the memory.
    """
    reader = RetrievalClassifier(model, KnnClassifier())
    entries = (
        (reader.means(ids, real).float().cpu().numpy(), labels.cpu().numpy()[:, None]) for ids, real, labels in batches
    )
    return Memory.write(folder, entries, source=reader.source, dim=model.config.dim, precision=precision)
