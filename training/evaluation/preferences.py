"""How often a model that scores texts prefers what people preferred, on pairs that were held out."""

from typing import Any

import numpy as np
import torch
from torch import nn

from training.data import TrainingData
from training.evaluation.quality import accuracy_interval
from training.objectives import IGNORED
from training.objectives.pairwise import FIRST, pair_of
from training.tokenizer import TextTokenizer

BATCH_SIZE = 64


def preference_quality(
    model: nn.Module, tokenizer: TextTokenizer, max_tokens: int, data: TrainingData, rng: np.random.Generator
) -> dict[str, Any]:
    """Measure a model of preferences on held-out pairs.

    Right is a higher score for the better text; equal scores are wrong, as nothing was preferred.

    Parameters
    ----------
    model : gives a text one score, on the CPU.
    data : the held-out records, each a pair; those without an answer are left out.
    rng : draws the resamples of the interval.

    Returns
    -------
    ``num_pairs`` (that are no ties), ``num_ties``, and ``accuracy``, ``accuracy_low``, ``accuracy_high`` (95 %
    bootstrap) of those that are no ties. Chance is 0.5.
    """
    known = [row for row, label in enumerate(data.labels) if label != IGNORED]
    first = np.array([FIRST[data.classes[data.labels[row]]] for row in known])
    difference = np.array(_differences(model, tokenizer, max_tokens, [pair_of(data.texts[row]) for row in known]))
    decided = first != FIRST["tie"]
    preferred, better = np.sign(difference[decided]).astype(np.int64), np.sign(first[decided] - 0.5).astype(np.int64)
    low, high = accuracy_interval(preferred, better, rng)
    return {
        "num_pairs": int(decided.sum()),
        "num_ties": int((~decided).sum()),
        "accuracy": float((preferred == better).mean()),
        "accuracy_low": low,
        "accuracy_high": high,
    }


def _differences(
    model: nn.Module, tokenizer: TextTokenizer, max_tokens: int, pairs: list[tuple[str, str]]
) -> list[float]:
    """By how much the first of each pair scores higher."""
    model.eval()
    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), BATCH_SIZE):
            some = pairs[start : start + BATCH_SIZE]
            a_B, b_B = (
                model(*tokenizer.encode([pair[side] for pair in some], max_tokens)).squeeze(-1) for side in (0, 1)
            )
            found += (a_B - b_B).tolist()
    return found
