"""What a memory is worth: models with it beside the same models without, on held-out records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from catalog.tables.datasets import Version
from workers.execution import UnitContext
from workers.memories import STATES, asking, stored_memory
from workers.reading import PASSAGES, measured_reading

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.data import TrainingData
    from training.export import SavedModel
    from training.retrieval.memory import MemoryReader
    from training.tokenizer import Encoded


def _reading(unit: UnitContext, arm: ArmConfig, saved: SavedModel, facts: dict[str, Any]) -> MemoryReader:
    """The arm's model with its memory in use, trusted as far as was chosen."""
    from training.remembering import Believed, reader_of

    believed = Believed(weight=facts["weight"], temperature=facts["temperature"])
    reader = reader_of(saved, arm, believed, facts["encoder"])
    reader.use(stored_memory(unit.store, facts))
    return reader


def memory_bytes(facts: dict[str, Any]) -> int:
    """Bytes of a memory's files."""
    return sum(one["size_bytes"] for one in facts["files"].values())


def class_row(
    unit: UnitContext,
    arm: ArmConfig,
    saved: SavedModel,
    facts: dict[str, Any],
    test: pl.DataFrame,
    classes: Sequence[str],
    whole: dict[str, Any],
    *,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure a classifier with its memory on held-out records.

    Parameters
    ----------
    facts : as of ``remember_arm``.
    whole : the row of the model without a memory.
    seed : as of ``training.evaluation.evaluate.evaluate``, the same as of ``whole``.

    Returns
    -------
    The further row as of ``training.evaluation.evaluate.evaluate``, whose size counts the memory and whose latency
    leaves an encoder out, for the catalog's vectors are there; and what the memory was worth.
    """
    from training.evaluation.evaluate import evaluate
    from training.evaluation.quality import paired_difference

    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
    asked = asking(unit, version, facts["encoder"], test, classes)
    vectors, place = asked.vectors, {text: row for row, text in enumerate(asked.texts)}

    def encode(texts: list[str]) -> Encoded:
        import torch

        encoded = saved.encode(texts)
        if vectors is None:
            return encoded
        return cast("Encoded", (*encoded, torch.from_numpy(vectors[[place[one] for one in texts]])))

    reader = _reading(unit, arm, saved, facts)
    row = evaluate(
        reader, encode, asked.texts, asked.labels, classes, seed=seed, reference=whole["predictions"]
    )  # fmt: skip
    row["size_bytes"] = whole["size_bytes"] + memory_bytes(facts)
    found = paired_difference(
        row["predictions"], whole["predictions"], np.array(asked.labels), np.random.default_rng(arm.seed)
    )
    return row, _told(arm, facts, "accuracy", (found.diff, found.low, found.high))


def language_rows(
    unit: UnitContext,
    arm: ArmConfig,
    saved: SavedModel,
    facts: dict[str, Any],
    data: TrainingData,
    without: np.ndarray[Any, np.dtype[np.float64]],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Measure a language model with its memory on held-out records.

    Parameters
    ----------
    facts : as of ``remember_arm``.
    data : the held-out records.
    without : (n,) losses of the records without a memory.

    Returns
    -------
    For the memory, and for one that is shuffled where layers were trained to read it, what differs in the row of
    held-out figures, and what the memory was worth.
    """
    from training.evaluation.held_out import paired_loss_difference
    from training.remembering import TRAINED

    if arm.retrieval not in TRAINED:
        return [_language_row(unit, arm, saved, facts, data.texts, without)]
    return [
        (
            row,
            _told(
                arm, facts, "nats saved", paired_loss_difference(each, without, np.random.default_rng(arm.seed)), name
            ),
        )
        for name, row, each in measured_reading(arm, saved, stored_memory(unit.store, facts), data)
    ]


def _language_row(
    unit: UnitContext,
    arm: ArmConfig,
    saved: SavedModel,
    facts: dict[str, Any],
    texts: Sequence[str],
    without: np.ndarray[Any, np.dtype[np.float64]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    from training.evaluation.held_out import paired_loss_difference
    from training.remembering import losses_with

    loss, each = losses_with(_reading(unit, arm, saved, facts), saved, texts)
    saved_nats = paired_loss_difference(each, without, np.random.default_rng(arm.seed))
    row = {"retrieval": arm.retrieval, "loss": loss, "terms": [loss], "perplexity": math.exp(min(loss, 700.0))}
    return row, _told(arm, facts, "nats saved", saved_nats)


def _told(
    arm: ArmConfig, facts: dict[str, Any], measure: str, found: tuple[float, float, float], name: str = ""
) -> dict[str, Any]:
    difference, low, high = found
    verdict = "paid" if low > 0 else "did worse" if high < 0 else "no gain shown"
    names = ("weight", "temperature", "num_entries", "num_outcomes", "loss_without", "loss_with", "memory_of")
    return {
        "arm": arm.name,
        "retrieval": name or arm.retrieval,
        "vectors": PASSAGES if name else f"encoder {facts['encoder']}" if facts["encoder"] else STATES,
        "measure": measure,
        "difference": difference,
        "low": low,
        "high": high,
        "verdict": verdict,
    } | {one: facts.get(one) for one in names}
