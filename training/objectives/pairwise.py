"""Which of two texts is better."""

import json
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from catalog.errors import DataError
from catalog.registry import NoConfig
from training.backbones import Heads
from training.data import TrainingData
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.packing import ClassifiesDocuments, Packed, packed_logits
from training.rows import inputs

FIRST = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""How sure an answer is that the first is better."""


@OBJECTIVES.register("pairwise")
class Pairwise(Objective):
    """Cross entropy of the preferred side, in nats a pair: the better text is to score higher (Bradley and Terry 1952).

    A record's text is a pair as labeling shows it, JSON with ``a``, ``b`` and maybe a ``prompt`` that both begin with;
    its label is ``a``, ``b`` or ``tie``. The model gives one text one score; its difference is the log odds. As reward
    models are trained: Ouyang et al. (2022), section 3.5; half a win for a tie, as in Rao and Kupper's (1967) simplest
    case.
    """

    reads = "pairs"

    def __init__(self, config: NoConfig) -> None:
        pass

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """One score a text; texts have no prefix."""
        return Heads(num_classes=1, orders=frozenset({"encoder", "causal"}))

    def check(self, data: TrainingData) -> None:
        """Pairs and answers are needed."""
        unknown = sorted(set(data.classes) - set(FIRST))
        if unknown or not data.classes:
            raise DataError(
                f"objective 'pairwise' learns from the answers {', '.join(FIRST)}, these records have "
                f"{', '.join(unknown) or 'none'}; label them with a queue of task pairwise"
            )
        told = {data.classes[one] for one in data.labels if one != IGNORED}
        if told <= {"tie"}:
            raise DataError(
                f"objective 'pairwise': the answers to {len(data.labels):,} pairs to learn from are "
                f"{'all ties' if told else 'missing'}; label pairs of which one is better"
            )
        for text, label in zip(data.texts, data.labels, strict=True):
            if label != IGNORED:
                pair_of(text)

    def batch(self, records: Records) -> Batch:
        """All first texts, then all second ones, and how sure it is that the first is better (B,), NaN if unknown."""
        corpus = records.corpus
        pairs = [pair_of(corpus.data.texts[row]) for row in records.rows]
        texts = [pair[side] for side in (0, 1) for pair in pairs]
        tensors = inputs(corpus, corpus.tokenizer.token_ids(texts, corpus.max_tokens))
        answers = [corpus.data.labels[row] for row in records.rows]
        first = [torch.nan if one == IGNORED else FIRST[corpus.data.classes[one]] for one in answers]
        return Batch(
            rows=list(records.rows),
            tensors=tensors | {"first": torch.tensor(first)},
            counts=(sum(one != IGNORED for one in answers),),
            num_tokens=tensors["input_ids"].numel(),
        )

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over pairs with an answer."""
        if "documents" in tensors:
            packed = Packed(tensors["input_ids"], tensors["attention_mask"], tensors["documents"])
            score_X = packed_logits(cast("ClassifiesDocuments", network), packed).squeeze(-1)
        else:
            score_X = network(tensors["input_ids"], tensors["attention_mask"]).squeeze(-1)
        a_B, b_B = score_X.float().chunk(2)
        known_B = ~tensors["first"].isnan()
        each_N = F.binary_cross_entropy_with_logits((a_B - b_B)[known_B], tensors["first"][known_B], reduction="none")
        own = None
        if each:
            own = torch.full_like(a_B.detach(), torch.nan).masked_scatter(known_B, each_N.detach())
        return Losses((each_N.sum(),), own)


def pair_of(text: str) -> tuple[str, str]:
    """The two texts of a pair, each behind the prompt where there is one.

    Raises
    ------
    DataError : the text is no pair.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        first, second, prompt = found["a"], found["b"], found.get("prompt")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"text {text[:80]!r} is no pair of texts; objective 'pairwise' needs JSON with a and b, as queues of task "
            "pairwise have them"
        ) from error
    before = f"{prompt}\n" if prompt else ""
    return before + str(first), before + str(second)
