"""Training data is aligned with its manifest, or refused."""

import polars as pl
import pytest

from catalog.errors import DataError
from training.data import TrainingData
from training.objectives import IGNORED


def test_rows_follow_the_manifest_whatever_order_they_came_in(frame: pl.DataFrame) -> None:
    built = TrainingData.build(frame.sample(fraction=1.0, shuffle=True, seed=1))
    by_id = {row["id"]: row for row in frame.to_dicts()}
    for number, record_id in enumerate(built.manifest.frame["id"]):
        assert built.texts[number] == by_id[record_id]["text"]
        assert built.classes[built.labels[number]] == by_id[record_id]["label"]
    assert built.digest == TrainingData.build(frame).digest


def test_unlabelled_records_are_ignored_and_labels_change_the_digest(frame: pl.DataFrame) -> None:
    partly = frame.with_columns(label=pl.when(pl.int_range(pl.len()) < 10).then(None).otherwise("label"))
    built = TrainingData.build(partly, ["food", "교통"])
    assert built.labels[:10] == [IGNORED] * 10
    assert built.digest != TrainingData.build(frame, ["food", "교통"]).digest
    assert TrainingData.build(frame, ["교통", "food"]).digest != TrainingData.build(frame, ["food", "교통"]).digest


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (pl.lit("food").alias("label"), None, r"classes=\['food'\] must be at least 2"),
        (pl.lit(None, dtype=pl.String).alias("label"), ["a", "b"], "no record has a label"),
        (pl.lit("spam").alias("label"), ["a", "b"], "label='spam' of record .* none of the classes a, b"),
        (pl.lit(None, dtype=pl.String).alias("text"), None, "has no text; drop it"),
    ],
)
def test_useless_data_is_refused(frame: pl.DataFrame, change: pl.Expr, classes: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainingData.build(frame.with_columns(change), classes)
