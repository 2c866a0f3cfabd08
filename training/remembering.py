"""A memory of training records beside a model that a recipe trains: what may ask for one, and how much to believe it.

Shapes: Q outcomes, K neighbours, D numbers of a vector.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from catalog.errors import ConfigError, DataError, NotFoundError, nearest
from training.arm import ArmConfig
from training.backbones import BACKBONES, Heads
from training.retrieval import RETRIEVAL
from training.retrieval.cross_attention import CrossAttention
from training.retrieval.knn_classifier import KnnClassifier, RetrievalClassifier
from training.retrieval.knn_lm import KnnLanguageModel, KnnLm
from training.retrieval.memory import MemoryReader
from training.retrieval.search import nearest_entries
from training.retrieval.votes import best_weight
from training.split import is_test

if TYPE_CHECKING:
    from training.export import SavedModel

FITS = {"cross_attention": "clm", "knn_classifier": "classification", "knn_lm": "clm"}
"""What may read a memory, and the objective whose models it goes with."""
TRAINED = frozenset({"cross_attention"})
"""What has layers of its own, which are trained with the model; the others vote beside one that is trained already."""
MEMORY = "memory"
"""The option that names another arm's memory; the others are those of the member."""
TUNED_SHARE = 0.1
MIN_TUNED, MOST_TUNED = 10, 500
"""Records that weight and temperature are chosen on: at least, for it to be a choice, and at most, the first by id."""
MAX_MEMORY_BYTES = 2**31
BATCH_SIZE = 16
"""Records at a time: a language model's have a probability for every token and every word of the vocabulary."""
_SPLIT = 2
"""Keeps the split apart from those of test records and of early stopping."""
_TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the median squared distance to a neighbour: those between states have no scale that is known beforehand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Believed:
    """How much of the neighbours' votes is believed, and what that is worth where it was chosen.

    Parameters
    ----------
    weight, temperature : of the votes.
    num_outcomes : on which they were chosen; 0 where both were given.
    loss_without, loss_with : mean negative logarithm of what the right outcomes were given, nats; None where both were
        given.
    """

    weight: float
    temperature: float
    num_outcomes: int = 0
    loss_without: float | None = None
    loss_with: float | None = None


def check_retrieval(arm: ArmConfig) -> None:
    """Refuse a memory that an arm cannot have.

    Raises
    ------
    ConfigError : the member is unknown, goes with another objective, refuses its options, or asks with states that the
        backbone's network does not show.
    """
    if arm.retrieval == "none":
        return
    where = f"arm {arm.name!r}: retrieval={arm.retrieval!r}"
    if arm.retrieval not in RETRIEVAL.load():
        raise ConfigError(f"{where} is unknown; {nearest(arm.retrieval, ['none', *FITS])}")
    if arm.objective != FITS[arm.retrieval]:
        raise ConfigError(
            f"{where} goes with objective {FITS[arm.retrieval]!r}, not with {arm.objective!r}; change one, or leave "
            "retrieval out"
        )
    if arm.objective_options.get("segment_tokens"):
        raise ConfigError(f"{where} reads texts as a whole; leave segment_tokens out of objective_options")
    options = dict(arm.retrieval_options)
    named = options.pop(MEMORY, None)
    if MEMORY in arm.retrieval_options and (not isinstance(named, str) or "/" not in named):
        raise ConfigError(f"{where}: memory={named!r} must be RUN/ARM of a training that kept one")
    known = {one.name for one in fields(RETRIEVAL[arm.retrieval].config)}
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}: unknown option {name!r}; {nearest(name, [*known, MEMORY])}")
    try:
        config = RETRIEVAL[arm.retrieval].configured(options)
    except (ConfigError, NotFoundError) as error:
        raise ConfigError(f"arm {arm.name!r}: retrieval {error}") from error
    if isinstance(config, CrossAttention):
        _check_passages(arm, config, where)
    if options.get("encoder") == "":
        check_states(arm)


def _check_passages(arm: ArmConfig, config: CrossAttention, where: str) -> None:
    if config.chunk_tokens >= arm.max_tokens:
        raise ConfigError(
            f"{where}: chunk_tokens={config.chunk_tokens} must be below max_tokens={arm.max_tokens}: a text is read "
            "from a whole chunk on; lower it, or raise max_tokens"
        )
    if arm.packing != "none":
        raise ConfigError(f"{where} reads for a text a row; set packing to none, not {arm.packing!r}")
    num_layers = BACKBONES[arm.backbone].configured(arm.backbone_options).num_layers
    if any(not 1 <= one <= num_layers for one in config.layers):
        raise ConfigError(f"{where}: layers={list(config.layers)} must lie in [1, {num_layers}], the network's layers")
    if arm.steps and MEMORY in arm.retrieval_options:
        raise ConfigError(
            f"{where}: memory={arm.retrieval_options[MEMORY]!r} is not what the arm would be trained with; set steps: "
            "0 and init_from to read it with a trained model, or leave it out"
        )


def check_states(arm: ArmConfig) -> None:
    """Refuse to ask with states that the backbone's network does not show.

    Raises
    ------
    ConfigError : it shows none.
    """
    backbone = BACKBONES[arm.backbone]
    try:
        backbone.member.check(arm, Heads(states=True, exits=True), backbone.configured(arm.backbone_options))
    except ConfigError as error:
        raise ConfigError(
            f"arm {arm.name!r}: retrieval={arm.retrieval!r} would ask with the model's own states, and {error}"
        ) from error


def is_tuned(arm: ArmConfig) -> bool:
    """Whether weight or temperature are chosen, on records that are then neither trained on nor remembered."""
    chosen = arm.retrieval not in {"none", *TRAINED}
    return chosen and not {"weight", "temperature"} <= set(arm.retrieval_options)


def kept_back(arm: ArmConfig, ids: pl.Series) -> pl.Series:
    """Which training records weight and temperature are chosen on, (n,) bool: none where both are given.

    Raises
    ------
    DataError : fewer than ``MIN_TUNED``.
    """
    if not is_tuned(arm):
        return pl.Series("kept_back", [False] * len(ids), dtype=pl.Boolean)
    rows = is_test(ids, TUNED_SHARE, arm.seed + _SPLIT)
    if rows.sum() < MIN_TUNED:
        raise DataError(
            f"arm {arm.name!r}: {rows.sum()} of {len(ids)} training records are kept back to choose the memory's "
            f"weight and temperature on, at least {MIN_TUNED} are needed; bring more, or give both in retrieval_options"
        )
    return rows


def reader_of(saved: "SavedModel", arm: ArmConfig, believed: Believed | None, encoder: str) -> MemoryReader:
    """The model with what asks a memory, none being in use.

    Parameters
    ----------
    believed : as ``believe`` said; None for the options alone.
    encoder : whose vectors the questions are; empty for the model's own states.
    """
    registered = RETRIEVAL[arm.retrieval]
    options = {name: one for name, one in arm.retrieval_options.items() if name != MEMORY}
    config = registered.configured(options)
    if hasattr(config, "encoder"):
        config = replace(config, encoder=encoder)
    if believed is not None:
        config = replace(config, weight=believed.weight, temperature=believed.temperature)
    return registered.member(saved.model, config).eval()


def believe(
    reader: MemoryReader,
    saved: "SavedModel",
    arm: ArmConfig,
    texts: Sequence[str],
    labels: Sequence[int],
    vectors: npt.NDArray[np.float32] | None,
) -> Believed:
    """Choose weight and temperature, where not given, under which right outcomes are likeliest.

    Parameters
    ----------
    reader : with its memory in use.
    texts, labels, vectors : of records that are neither trained on nor remembered; labels and vectors where the reader
        asks with them.

    References
    ----------
    Khandelwal et al. (2020), section 3: the weight is chosen on held-out text.
    """
    assert isinstance(reader, KnnLanguageModel | RetrievalClassifier)
    config: KnnLm | KnnClassifier = reader.config
    if not is_tuned(arm):
        return Believed(weight=config.weight, temperature=config.temperature)
    parts = list(_asked(reader, saved, texts, labels, vectors))
    proba_Q, distance_QK, right_QK = (torch.cat(one) for one in zip(*parts, strict=True))
    scale = max(float(distance_QK.median()), 1e-6)
    given = arm.retrieval_options
    tried = []
    for temperature in [given["temperature"]] if "temperature" in given else [scale * one for one in _TEMPERATURES]:
        votes_Q = ((-distance_QK / temperature).softmax(-1) * right_QK).sum(-1).double()
        weight = given["weight"] if "weight" in given else best_weight(proba_Q, votes_Q)
        loss = -float(((1 - weight) * proba_Q + weight * votes_Q).clamp(min=1e-300).log().mean())
        tried.append((loss, weight, temperature))
    loss, weight, temperature = min(tried)
    return Believed(
        weight=float(weight),
        temperature=float(temperature),
        num_outcomes=len(proba_Q),
        loss_without=-float(proba_Q.clamp(min=1e-300).log().mean()),
        loss_with=loss,
    )


@torch.no_grad()
def _asked(
    reader: MemoryReader,
    saved: "SavedModel",
    texts: Sequence[str],
    labels: Sequence[int],
    vectors: npt.NDArray[np.float32] | None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of every outcome what the model gave it (Q,), its neighbours' distances and whether they say it, (Q, K)."""
    assert isinstance(reader, KnnLanguageModel | RetrievalClassifier)
    memory, model, num_neighbours = reader.memory, cast("Any", saved.model), reader.config.num_neighbours
    assert memory is not None
    for start in range(0, len(texts), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        ids, real = saved.encode(list(texts[rows]))
        if isinstance(reader, KnnLanguageModel):
            hidden = model.hidden(ids, real)
            followed = real[:, :-1] & real[:, 1:]
            questions, outcome = hidden[:, :-1][followed], ids[:, 1:][followed]
            log_proba = model.token_logits(questions).log_softmax(-1)
        else:
            outcome = torch.tensor(labels[rows])
            log_proba = model(ids, real).log_softmax(-1)
            questions = reader.means(ids, real) if vectors is None else torch.from_numpy(vectors[rows])
        distance, entry = nearest_entries(questions, memory.keys, num_neighbours)
        says = torch.from_numpy(memory.values[entry.numpy(), 0].astype("i8"))
        yield log_proba.gather(1, outcome[:, None])[:, 0].double().exp(), distance, says == outcome[:, None]


@torch.inference_mode()
def losses_with(reader: MemoryReader, saved: "SavedModel", texts: Sequence[str]) -> tuple[float, npt.NDArray[Any]]:
    """What the next tokens cost with a memory, in nats: the mean over tokens, and over those of each record.

    Returns
    -------
    The mean, and (n,) float64, NaN where a record has no next token.
    """
    total, count, each = 0.0, 0, []
    for start in range(0, len(texts), BATCH_SIZE):
        ids, real = saved.encode(list(texts[start : start + BATCH_SIZE]))
        followed = real[:, :-1] & real[:, 1:]
        right = reader(ids, real)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].double()
        loss_B = -right.where(followed, 0).sum(1)
        num_B = followed.sum(1)
        total, count = total + float(loss_B.sum()), count + int(num_B.sum())
        each.append((loss_B / num_B).numpy())
    return total / max(count, 1), np.concatenate(each)


def fitting(dim: int) -> int:
    """Entries of float32 vectors of this size that a memory may have, in ``MAX_MEMORY_BYTES``."""
    return MAX_MEMORY_BYTES // (4 * dim + 4)
