"""What the arms of a training learn from: texts alone, classes, spans or preferences, as of when it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.tables.datasets import Dataset, Version
from workers import answered, pretraining, runs
from workers.annotated import check_learnable, class_labels
from workers.execution import UnitContext

if TYPE_CHECKING:
    from training.objectives import Reads
    from training.recipe import TrainRecipe


def answers_of(session: Session, dataset: Dataset, recipe: TrainRecipe) -> tuple[pl.DataFrame, str]:
    """What people answered that the arms learn from, by record, and its digest; nothing where texts alone teach.

    Raises
    ------
    DataError : there are no labels, with the commands that bring some, or only answers that teach something else.
    """
    if recipe.reads in answered.TASK_OF:
        frame = answered.answers_to_learn(session, dataset, recipe.reads)
        return frame, runs.digest({row[0]: row[1:] for row in frame.rows()})
    annotated = {} if recipe.reads == "texts" else annotated_labels(session, dataset.id)
    if recipe.reads == "classes":
        if not annotated and (recipe.labels == "annotated" or dataset.label_column is None):
            check_learnable(session, dataset.name, dataset.id)
        _check_labels(dataset, recipe, len(annotated))
    schema = {"id": pl.String, "answer": pl.String}
    return pl.DataFrame(sorted(annotated.items()), schema=schema, orient="row"), runs.digest(annotated)


def _check_labels(dataset: Dataset, recipe: TrainRecipe, num_annotated: int) -> None:
    ask = f"collect some with `winnow label create {dataset.name} --schema labels.yaml`"
    if recipe.labels == "annotated" and num_annotated == 0:
        raise DataError(f"recipe {recipe.name!r} takes annotated labels, and {dataset.name!r} has none; {ask}")
    if dataset.label_column is None and num_annotated == 0:
        raise DataError(f"dataset {dataset.name!r} has no labels; ingest it with --label COLUMN, or {ask}")


def labelled(
    unit: UnitContext, recipe: TrainRecipe, version: Version, records: pl.DataFrame, answers: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Records with what the recipe's arms learn, by id, and ``classes`` and more that is told of it.

    Parameters
    ----------
    records : as ``curated.read_records`` gives them, in its order.
    answers : as ``answers_of`` gave them when the training was asked for.

    Raises
    ------
    DataError : what is left teaches nothing, with the remedy.
    """
    facts: dict[str, Any] = {}
    if recipe.reads == "texts":
        found = pretraining.without_labels(records)
    elif recipe.reads == "classes":
        found = with_labels(records, answers, recipe.labels)
    else:
        with unit.catalog.read() as session:
            text_column = session.get_one(Dataset, version.dataset_id).text_column
        found, facts["left_out"] = answered.with_answers(
            unit.store, version, text_column, records, answers, recipe.reads
        )
    of_people = pl.col("id").is_in(answers["id"].implode()) if recipe.labels != "given" else pl.lit(value=False)
    version_of_labels = f"annotated@{unit.claim.config['labels'][:12]}"
    found = found.with_columns(
        label_version=pl.when(of_people).then(pl.lit(version_of_labels)).otherwise(pl.lit("given"))
    )
    if recipe.reads in answered.TASK_OF:
        return found, facts | {"classes": answered.classes_of(found, recipe.reads)}
    classes = sorted(found["label"].drop_nulls().unique().to_list())
    if len(classes) < 2 and recipe.reads == "classes":
        have = (
            f"all {found.height:,} labelled records are {classes[0]!r}"
            if classes
            else "no record that stayed has a label"
        )
        raise DataError(f"{have}; a classifier needs two classes: label more, or loosen the cleaning recipe")
    return found, facts | {"classes": classes}


def slices(reads: Reads) -> pl.Expr:
    """What each record counts in: ``source:NAME``, ``language:CODE``, and ``class:LABEL`` where classes are learned.

    No language counts where cleaning told none.

    Parameters
    ----------
    reads : what is learned from.
    """
    names = [pl.format("source:{}", "source"), pl.format("language:{}", "language")]
    return pl.concat_list(names + [pl.format("class:{}", "label")] * (reads == "classes")).list.drop_nulls()


def with_labels(records: pl.DataFrame, answers: pl.DataFrame, source: str) -> pl.DataFrame:
    """Records with the label to train on and the hash of their content; their weights are those of the version.

    Parameters
    ----------
    answers : ``id`` and ``answer`` of what people labelled.
    source : ``given``, ``annotated`` or ``merged``.
    """
    joined = records.join(answers, on="id", how="left", maintain_order="left")
    chosen = {"given": pl.col("label"), "annotated": pl.col("answer"), "merged": pl.coalesce("answer", "label")}[source]
    return (
        joined.with_columns(label=chosen, hash=pl.col("id").str.slice(0, 32))
        .drop("answer")
        .drop_nulls("label")
        .sort("id")
    )


def annotated_labels(session: Session, dataset_id: str) -> dict[str, str]:
    """What people answered, by record, where an answer is a class; see ``workers.annotated``."""
    return {record_id: one.value for record_id, one in class_labels(session, dataset_id).items()}
