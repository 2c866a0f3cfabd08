"""Taggers and models of preferences, measured on held-out records: figures by hand."""

import numpy as np
import polars as pl
import pytest
import torch

from catalog.errors import DataError
from tests.training.objectives import Bench, arm_of, data_of
from training.data import TrainingData
from training.evaluation.preferences import preference_quality
from training.evaluation.spans import span_quality
from training.objectives.pairwise import pair_of


def saying(tag: int, data: TrainingData, objective: str) -> Bench:
    """A network whose class head says the same everywhere."""
    bench = Bench(arm_of(objective), data)
    head = bench.network.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[tag] = 1.0
    return bench


def test_span_f1_counts_exact_parts_over_all_records() -> None:
    # Two bytes a text, each its own token and, beginning label 0 each, its own span.
    frame = pl.DataFrame(
        {
            "id": ["1", "2", "3", "4"],
            "text": ["qz", "zq", "qx", "zz"],
            "label": pl.Series([None] * 4, dtype=pl.String),
            "difficulty": 0.5,
            "weight": 1.0,
            "spans": [
                [{"start": 0, "end": 1, "label": "a"}],
                [{"start": 0, "end": 2, "label": "a"}, {"start": 1, "end": 2, "label": "b"}],
                [],
                None,
            ],
        }
    ).with_columns(hash="id")
    data = TrainingData.build(frame)
    assert data.spans == [[(0, 1, 0)], [(0, 2, 0), (1, 2, 1)], [], None]
    bench = saying(1, data, "tagging")
    found = span_quality(bench.network, bench.tokenizer, 8, data, np.random.default_rng(0))
    # Six spans were said, three are there, one is right; later spans win tokens: "zq" has the tags 1, 3.
    assert found["num_spans"] == 3
    assert found["f1"] == pytest.approx(2 / 9)
    assert (found["precision"], found["recall"]) == (pytest.approx(1 / 6), pytest.approx(1 / 3))
    assert found["by_label"] == {"a": pytest.approx(2 / 8), "b": 0.0}
    assert found["token_accuracy"] == pytest.approx(2 / 6)
    assert found["token_f1"] == pytest.approx(2 * 2 / (6 + 3))
    # The first span of "zq" cannot be told from its first token.
    assert found["reachable_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert 0 <= found["f1_low"] <= found["f1"] <= found["f1_high"] <= 1


def test_label_of_a_span_that_is_no_class_is_refused() -> None:
    frame = pl.DataFrame(
        {
            "id": ["1"],
            "text": ["qz"],
            "difficulty": 0.5,
            "weight": 1.0,
            "spans": [[{"start": 0, "end": 1, "label": "a"}]],
        }
    )
    frame = frame.with_columns(hash="id", label=pl.lit(None, dtype=pl.String))
    with pytest.raises(DataError, match="label='a' of a span is none of b; map it or add the label"):
        TrainingData.build(frame, ["b"])


def test_preferences_are_counted_without_ties_and_equal_scores_are_wrong() -> None:
    data = data_of("pairwise")
    ties = [place for place, label in enumerate(data.labels) if label != -100][:3]
    classes = [*data.classes, "tie"]
    data = TrainingData(
        data.texts, [2 if row in ties else label for row, label in enumerate(data.labels)], classes, data.manifest
    )
    bench = Bench(arm_of("pairwise"), data)
    rng = np.random.default_rng(0)
    found = preference_quality(bench.network, bench.tokenizer, 64, data, rng)
    known = [row for row, label in enumerate(data.labels) if label in (0, 1)]
    right = 0
    for row in known:
        first, second = (
            float(bench.network(*bench.tokenizer.encode([text], 64)).detach()) for text in pair_of(data.texts[row])
        )
        right += (first > second) == (data.labels[row] == 0) and first != second
    assert (found["num_pairs"], found["num_ties"]) == (len(known), 3)
    assert found["accuracy"] == pytest.approx(right / len(known))
    flat = saying(0, data, "pairwise")
    assert preference_quality(flat.network, flat.tokenizer, 64, data, rng)["accuracy"] == 0.0
