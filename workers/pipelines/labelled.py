"""Stages over the labelled records of a curated version: who is labelled how, and what classifiers think out of fold.

label (all) → fit (a fold)

``label_errors`` and ``difficulty`` begin with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, DataError, nearest
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from curation.label_errors.features import tfidf
from curation.label_errors.folds import duplicate_groups, grouped_folds
from curation.label_errors.judging import (
    MIN_RECORDS,
    NUM_FOLDS,
    PENALTIES,
    Suspicions,
    held_out_proba,
    judge_labels,
    log_loss,
)
from curation.label_errors.votes import neighbour_votes
from labeling.strategies.label_errors import SECOND_OPINION
from workers import curated, runs
from workers.annotated import check_learnable, class_labels
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.learnable import annotated_labels
from workers.pipelines import Stage, single
from workers.pipelines.embeddings import embed, vector_column, vector_rows
from workers.pipelines.outputs import outputs

LabelSource = Literal["merged", "given", "annotated"]
Features = Literal["embeddings", "tfidf"]
SEED = 0
NEIGHBOUR_ENCODER = "hashing"
"""Whose vectors tell neighbours where the classifier looks at TF-IDF."""
ANSWERS = {"id": pl.String, "answer": pl.String, "settled": pl.String}


def check_choices(labels: str, features: str) -> None:
    """Refuse names that are none.

    Raises
    ------
    ConfigError : an unknown source of labels or kind of features, with the nearest known one.
    """
    for name, value, legal in (("labels", labels, get_args(LabelSource)), ("features", features, get_args(Features))):
        if value not in legal:
            raise ConfigError(f"{name}={value!r} is unknown; {nearest(value, legal)}")


def label_config(session: Session, store: Store, dataset: Dataset, labels: str, features: str) -> dict[str, Any]:
    """The part of a run's config that its label stages go by; people's answers as they stand now.

    Raises
    ------
    DataError : the dataset has no labels, with the command that brings some.
    """
    answers, settled = annotated_labels(session, dataset.id), settled_labels(session, dataset.id)
    if (dataset.label_column is None or labels == "annotated") and not answers:
        check_learnable(session, dataset.name, dataset.id)
        raise DataError(
            f"dataset {dataset.name!r} has no {'annotated ' if labels == 'annotated' else ''}labels; ingest it with "
            f"--label COLUMN, or collect some with `winnow label create {dataset.name} --schema labels.yaml`"
        )
    rows = [(one, answer, settled.get(one)) for one, answer in sorted(answers.items())]
    snapshot = store.write_frame(pl.DataFrame(rows, schema=ANSWERS, orient="row"), "labels")
    asked = {"labels": labels, "features": features, "answers": runs.digest({"answers": answers, "settled": settled})}
    return asked | {"snapshot": snapshot.to_json()}


def settled_labels(session: Session, dataset_id: str) -> dict[str, str]:
    """What people said when they were asked for a second opinion, by record."""
    return {one: found.value for one, found in class_labels(session, dataset_id, strategy=SECOND_OPINION).items()}


def _label(unit: UnitContext) -> UnitResult:
    """Labelled records with their fold, and what is looked at of them."""
    config = unit.claim.config
    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
    answers = unit.store.read_frame(StoredFile.from_json(config["snapshot"]))
    records = curated.read_records(unit.store, version).with_row_index("row")
    rows, num_rare = chosen_labels(records, answers, config["labels"])
    classes = sorted(rows["label"].unique().to_list())
    if len(classes) < 2:
        raise DataError(
            f"of {records.height:,} records that stayed, {rows.height:,} have a label that at least {MIN_RECORDS} "
            f"share, of {len(classes)} classes; two are needed: label more, or loosen the cleaning recipe"
        )
    rows = rows.with_columns(code=pl.col("label").replace_strict(classes, range(len(classes)), return_dtype=pl.Int64))
    unit.progress(0, rows.height)
    groups = duplicate_groups(rows["text"])
    unit.check()
    folds = grouped_folds(groups, rows["code"].to_numpy(), NUM_FOLDS, SEED)
    vectors, looked_at = _features(unit, version, rows)
    out = rows.select("id", "label", "source", "code", "trusted").with_columns(
        group=pl.Series(groups), fold=pl.Series(folds), vector=vectors
    )
    shards = [("labelled", unit.store.write_frame(out, "labelled"))]
    if looked_at is not None:
        shards.append(("features", unit.store.write_frame(looked_at, "labelled")))
    unit.progress(rows.height, rows.height)
    return UnitResult(
        result={"classes": classes, "records": rows.height, "rare": num_rare, "groups": len(np.unique(groups))},
        shards=shards,
    )


def chosen_labels(records: pl.DataFrame, answers: pl.DataFrame, source: str) -> tuple[pl.DataFrame, int]:
    """Records with the label that counts; those of classes too rare to learn are left out, and counted.

    Parameters
    ----------
    records : ``id, label`` and more.
    answers : as ``ANSWERS``; a label is trusted where a second opinion was the same.
    """
    joined = records.join(answers, on="id", how="left", maintain_order="left")
    chosen = {"given": pl.col("label"), "annotated": pl.col("answer"), "merged": pl.coalesce("answer", "label")}[source]
    by_people = pl.when(pl.col("answer").is_not_null() & (source != "given")).then(pl.lit("annotated"))
    rows = (
        joined.with_columns(label=chosen, source=by_people.otherwise(pl.lit("given")))
        .drop_nulls("label")
        .with_columns(trusted=(pl.col("settled") == pl.col("label")).fill_null(value=False))
        .sort("id")
    )
    common = rows.filter(pl.len().over("label") >= MIN_RECORDS)
    return common, rows.height - common.height


def _features(unit: UnitContext, version: Version, rows: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame | None]:
    """Vectors that tell neighbours, and sparse features where the classifier looks at others."""
    if unit.claim.config["features"] == "embeddings":
        return vector_column(curated.read_embeddings(unit.store, version)[rows["row"].to_numpy()]), None
    sparse = tfidf(rows["text"])
    sparse.sort_indices()
    lengths = np.diff(sparse.indptr)
    owner = pl.Series("row", np.repeat(np.arange(rows.height), lengths))
    entries = pl.DataFrame([owner, pl.Series("column", sparse.indices), pl.Series("value", sparse.data)])
    return embed(unit, NEIGHBOUR_ENCODER, rows.select("id", "text"))["vector"], entries


@dataclass(frozen=True, eq=False)
class LabelledRecords:
    """What ``label`` left: ``frame`` without vectors, ``vectors`` (n, d), ``features`` that classifiers look at."""

    frame: pl.DataFrame
    vectors: np.ndarray
    features: Any

    @property
    def codes(self) -> np.ndarray:
        """(n,) int64 labels."""
        return self.frame["code"].to_numpy()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.codes.max()) + 1


def labelled_records(unit: UnitContext) -> LabelledRecords:
    """Read back what ``label`` left."""
    (file,) = outputs(unit, "label", "labelled")
    frame = unit.store.read_frame(file)
    vectors = np.ascontiguousarray(vector_rows(frame["vector"]), dtype=np.float32)
    features: Any = vectors
    if files := outputs(unit, "label", "features"):
        from scipy.sparse import coo_array

        entries = unit.store.read_frame(files[0])
        places = (entries["row"].to_numpy(), entries["column"].to_numpy())
        width = int(entries["column"].max() or 0) + 1  # type: ignore[arg-type]
        features = coo_array((entries["value"].to_numpy(), places), shape=(frame.height, width)).tocsr()
    return LabelledRecords(frame.drop("vector"), vectors, features)


def plan_folds(_session: Session, _run: Run) -> list[dict[str, Any]]:
    """One unit a fold."""
    return [{"fold": fold} for fold in range(NUM_FOLDS)]


def _fit(unit: UnitContext) -> UnitResult:
    """What classifiers of each penalty, fitted on the other folds, think of this one."""
    records = labelled_records(unit)
    held_out = records.frame["fold"].to_numpy() == unit.claim.payload["fold"]
    unit.progress(0, len(held_out))
    found = held_out_proba(records.features, records.codes, held_out, records.num_classes)
    unit.progress(len(held_out), len(held_out))
    shards = [("proba", unit.store.write_frame(pl.DataFrame({"proba": vector_column(one)}), "proba")) for one in found]
    losses = [log_loss(one, records.codes[held_out]) for one in found]
    return UnitResult(result={"records": int(held_out.sum()), "losses": losses}, shards=shards)


def out_of_fold(unit: UnitContext, records: LabelledRecords) -> tuple[np.ndarray, float]:
    """(n, num_classes) probabilities of the penalty with the best likelihood over all folds, and that penalty."""
    files = outputs(unit, "fit", "proba")
    folds = records.frame["fold"].to_numpy()
    every = np.zeros((len(PENALTIES), len(folds), records.num_classes))
    for number, file in enumerate(files):
        fold, penalty = divmod(number, len(PENALTIES))
        every[penalty, folds == fold] = vector_rows(unit.store.read_frame(file)["proba"])
    losses = [log_loss(one, records.codes) for one in every]
    best = int(np.argmin(losses))
    return every[best], PENALTIES[best]


def judged(unit: UnitContext, records: LabelledRecords, proba: np.ndarray) -> Suspicions:
    """Every label's suspicion."""
    votes = neighbour_votes(records.vectors, records.codes, records.frame["group"].to_numpy(), records.num_classes)
    unit.check()
    return judge_labels(proba, votes, records.codes, records.frame["trusted"].to_numpy())


def classes_of(result: Mapping[str, Any]) -> list[str]:
    """Names of the codes, from the result of ``label``."""
    return [str(one) for one in result["classes"]]


STAGES = (
    Stage(name="label", plan=single, work=_label),
    Stage(name="fit", plan=plan_folds, work=_fit),
)
