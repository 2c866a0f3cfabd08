"""Objectives: what a model is trained to do, and how the batches for it are made.

Shapes: B records, R rows, T tokens, C dim, K classes, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from catalog.registry import Registry
from training.backbones import Heads

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.data import TrainingData
    from training.rows import TokenRow
    from training.tokenizer import TextTokenizer

Reads = Literal["texts", "classes", "pairs", "spans"]
IGNORED = -100
"""The label of a position that has none."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What all batches of a run are made of.

    Parameters
    ----------
    data : texts, labels and difficulty, by row.
    tokenizer : what makes token ids of texts, special tokens of the objective included.
    max_tokens : longest row of a batch.
    packed : whether several records share a row.
    seed : of everything that is drawn.
    total_steps : updates of the run.
    """

    data: TrainingData
    tokenizer: TextTokenizer
    max_tokens: int
    packed: bool
    seed: int
    total_steps: int

    @cached_property
    def _difficulty(self) -> list[float]:
        return self.data.manifest.frame["difficulty"].to_list()

    def difficulty(self, row: int) -> float:
        """Difficulty of a record, in [0, 1]."""
        return self._difficulty[row]

    def generator(self, step: int, row: int, part: int = 0) -> np.random.Generator:
        """What is drawn for one record in one step, from nothing but the seed and these numbers.

        So that masks are the same after a resume, in whichever micro-batch, thread or rank the record comes up. Row and
        part stand in the upper words of Philox's counter, which drawing never reaches.
        """
        return np.random.Generator(np.random.Philox(key=[self.seed, step], counter=[0, 0, part, row]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """The records that a batch is made of.

    Parameters
    ----------
    corpus : where they are from.
    step : updates done before; masks differ from step to step.
    rows : row numbers of the records.
    ids : token ids of each, signed, at least one, cut to ``corpus.max_tokens``.
    """

    corpus: Corpus
    step: int
    rows: Sequence[int]
    ids: Sequence[TokenRow]

    def generator(self, place: int, part: int = 0) -> np.random.Generator:
        """What is drawn for the record at ``place`` of ``rows``; other parts are independent draws."""
        return self.corpus.generator(self.step, self.rows[place], part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What is in memory at a time.

    Parameters
    ----------
    rows : row numbers of the records.
    tensors : what the objective made for itself.
    counts : targets of each of the objective's terms. A rank or a micro-batch has its own; the loss is divided by those
        of the whole batch.
    num_tokens : padded tokens that are read.
    """

    rows: list[int]
    tensors: dict[str, Tensor]
    counts: tuple[int, ...]
    num_tokens: int


class Losses(NamedTuple):
    """What a batch costs.

    ``sums`` holds a scalar a term, summed over the batch's targets of this term and multiplied by its weight; ``each``
    the mean loss of every record (B,), NaN where a record has no target, or None where nobody asked.
    """

    sums: tuple[Tensor, ...]
    each: Tensor | None = None

    def mean(self, counts: Sequence[int], whole: Sequence[int]) -> Tensor:
        """This part of the whole batch's loss, which is the sum over terms of the mean over all its targets.

        Parameters
        ----------
        counts : targets of each term here.
        whole : targets of each term in the whole batch.
        """
        # In two steps, as a mean that weighs by its share: the bits of trainings that were begun so.
        terms = [
            total / max(own, 1) * (own / max(every, 1))
            for total, own, every in zip(self.sums, counts, whole, strict=True)
        ]
        return sum(terms[1:], terms[0])


class Objective(ABC):
    """Contract of a member: made of its config, it keeps no state.

    A batch is a pure function of the corpus, the step and the row numbers. Losses are sums, with the number of targets
    known beforehand, so that micro-batches and ranks add up to the whole batch.
    """

    reads: Reads = "texts"
    """What it learns from: texts alone, or the classes, pairs or spans that people or the source gave."""

    @abstractmethod
    def heads(self, num_classes: int) -> Heads:
        """What it needs of the network, when the data has so many classes."""

    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that the vocabulary must have besides padding and start."""
        return ()

    def check(self, data: TrainingData) -> None:  # noqa: B027 - most can be trained on any texts
        """Refuse data that lacks what is learned.

        Raises
        ------
        DataError : with what is missing and how to get it.
        """

    def network(self, model: nn.Module) -> nn.Module:
        """What is trained: the model, or a module that holds it and others of the objective's own.

        Weights that are drawn come from torch's current generator.
        """
        return model

    def begin(self, network: nn.Module, corpus: Corpus) -> None:  # noqa: B027 - most need nothing but batches
        """Get ready to train: called once an attempt, before the first batch.

        Parameters
        ----------
        network : what ``network`` returned.

        Raises
        ------
        DataError : the corpus lacks what is needed.
        """

    @abstractmethod
    def batch(self, records: Records) -> Batch:
        """Make a batch on the CPU; called in threads."""

    @abstractmethod
    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """What a batch costs.

        Parameters
        ----------
        network : what ``network`` returned.
        tensors : those of the batch, on the network's device.
        each : whether every record's own loss is asked for.
        """


OBJECTIVES: Registry[Callable[[Any], Objective]] = Registry("objective", "training.objectives")
"""Contract: ``(config) -> Objective``."""


def objective_of(arm: ArmConfig) -> Objective:
    """The objective of an arm, with what its retrieval trains beside the model.

    Raises
    ------
    NotFoundError, ConfigError : it does not exist, or refuses its options.
    """
    if arm.objective == "clm" and arm.retrieval == "cross_attention":
        from training.retrieval.reading import ReadingLanguageModel, reading_config

        return ReadingLanguageModel(reading_config(arm))
    registered = OBJECTIVES[arm.objective]
    return registered.member(registered.configured(arm.objective_options))
