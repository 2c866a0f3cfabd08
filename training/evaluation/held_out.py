"""What an objective costs on texts that were held out: the measure of models that were trained without labels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catalog.errors import DataError
from training.arm import ArmConfig
from training.data import TrainingData
from training.evaluation.evaluate import size_bytes
from training.evaluation.quality import seeded_interval
from training.objectives import Corpus, Records, objective_of
from training.tokenizer import TextTokenizer

BATCH_SIZE = 64
_SEED, _STEP = 0, 0
"""Of what is masked: the same for every arm, so that their losses can be compared text by text."""


def held_out_loss(
    network: nn.Module, model: nn.Module, tokenizer: TextTokenizer, arm: ArmConfig, data: TrainingData
) -> dict[str, Any]:
    """Measure an objective's loss on held-out records, with masks that are drawn the same for every arm.

    Parameters
    ----------
    network, model : what was trained, and the part of it that is kept; on the CPU.
    tokenizer, arm : of the model.
    data : the held-out records.

    Returns
    -------
    ``num_examples``, ``num_targets`` (of each term), ``loss`` (of the whole, as in training, nats), ``terms`` (the mean
    of each, its weight included), ``perplexity`` (of the only term, None where there are several), ``size_bytes`` (of
    the model), and ``losses`` ((n,) float64, each record's own, NaN where it has no target).
    """
    objective = objective_of(arm)
    network.eval()
    corpus = Corpus(
        data=data, tokenizer=tokenizer, max_tokens=arm.max_tokens, packed=False, seed=_SEED, total_steps=1
    )  # fmt: skip
    sums: list[list[float]] = []
    counts: list[tuple[int, ...]] = []
    each: list[npt.NDArray[np.float64]] = []
    with torch.inference_mode():
        for start in range(0, len(data.texts), BATCH_SIZE):
            rows = list(range(start, min(start + BATCH_SIZE, len(data.texts))))
            ids = tokenizer.token_ids([data.texts[row] for row in rows], arm.max_tokens)
            batch = objective.batch(Records(corpus=corpus, step=_STEP, rows=rows, ids=ids))
            found = objective.losses(network, batch.tensors, each=True)
            assert found.each is not None
            sums.append([one.item() for one in found.sums])
            counts.append(batch.counts)
            each.append(found.each.double().numpy())
    num_targets = [sum(term) for term in zip(*counts, strict=True)]
    terms = [math.fsum(term) / max(count, 1) for term, count in zip(zip(*sums, strict=True), num_targets, strict=True)]
    return {
        "num_examples": len(data.texts),
        "num_targets": num_targets,
        "loss": math.fsum(terms),
        "terms": terms,
        "perplexity": math.exp(min(terms[0], 700.0)) if len(terms) == 1 else None,
        "size_bytes": size_bytes(model),
        "losses": np.concatenate(each),
    }


def paired_loss_difference(
    losses: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float, float]:
    """By how much records cost less than under a reference, with a 95 % bootstrap interval over records, in nats.

    Parameters
    ----------
    losses, reference : (n,) of the same records; those without a target in either are left out.
    """
    saved = reference - losses
    saved = saved[~np.isnan(saved)]
    if not len(saved):
        return 0.0, 0.0, 0.0
    means = saved[rng.integers(0, len(saved), (2000, len(saved)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(saved.mean()), float(low), float(high)


def seeded_loss_difference(
    pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
) -> tuple[float, float, float]:
    """By how much records cost less than under a reference, the mean over seeds, with a 95 % interval, in nats.

    The interval is for other seeds and other records, as of ``quality.seeded_difference``.

    Parameters
    ----------
    pairs : losses and reference under each seed, at least two; (n,) of the same records, of which those without a
        target in any are left out.

    Raises
    ------
    DataError : fewer than two seeds.
    """
    saved = np.array([reference - losses for losses, reference in pairs])
    if len(saved) < 2:
        raise DataError(f"{len(saved)} seeds give no interval; train under at least 2")
    saved = saved[:, ~np.isnan(saved).any(axis=0)]
    if not saved.shape[1]:
        return 0.0, 0.0, 0.0
    return seeded_interval(saved)
