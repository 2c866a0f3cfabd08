"""Spans and preferences that people gave, as the records that a training learns from.

Classes are one word a record and stand in ``workers.annotated``; these say something about one text exactly, so that an
answer counts only while the record still has the text that was answered.
"""

import hashlib
import json
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.store import Store
from catalog.tables.datasets import Dataset, Version
from catalog.tables.labeling import LabelQueue, LabelTask
from labeling import queue as queues
from labeling.quality import consensus_labels
from labeling.schema import LabelSchema
from labeling.tasks import canonical
from labeling.tasks.pairwise import SIDES, TIE, Pairwise
from workers.pairs import pair_texts

TASK_OF = {"spans": "spans", "pairs": "pairwise"}
"""The task type whose answers an objective that reads this learns from."""
PREFERENCES = (*SIDES, TIE)
ANSWERS = {"id": pl.String, "answer": pl.String, "text_hash": pl.String, "a": pl.String, "b": pl.String}
SPANS = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64, "label": pl.String}))


def answers_to_learn(session: Session, dataset: Dataset, reads: str) -> pl.DataFrame:
    """The answers that stand in the dataset's queues of the task; a later queue's replaces an earlier one's.

    Rehearsals do not count.

    Parameters
    ----------
    reads : a key of ``TASK_OF``.

    Returns
    -------
    ``ANSWERS``, by id: the answer as canonical JSON, the hash of the text that was answered, and of a pair the columns
    that were compared.

    Raises
    ------
    DataError : there are none; the message has the commands that bring some.
    """
    task = TASK_OF[reads]
    query = select(LabelQueue).where(LabelQueue.dataset_id == dataset.id, LabelQueue.rehearsal.is_(False))
    found: dict[str, tuple[str, str, str, str | None, str | None]] = {}
    others: list[str] = []
    for queue in session.scalars(query.order_by(LabelQueue.created_at, LabelQueue.id)):
        schema = LabelSchema.from_json(queue.schema)
        if schema.task != task:
            if next(queues.current_answers(session, queue), None) is not None:
                others.append(f"{queue.name!r} ({schema.task})")
            continue
        columns = (schema.kind.a, schema.kind.b) if isinstance(schema.kind, Pairwise) else (None, None)
        asked = select(LabelTask.record_id, LabelTask.text).where(LabelTask.queue_id == queue.id)
        hashes = {record_id: text_hash(text) for record_id, text in session.execute(asked)}
        for one in consensus_labels(session, queue_id=queue.id):
            row = (one.record_id, canonical(one.value), hashes[one.record_id], *columns)
            found[one.record_id] = row
    if not found:
        instead = f" (people answered {', '.join(others)})" if others else ""
        raise DataError(
            f"nobody has answered a queue of task {task} of {dataset.name!r} yet{instead}; open one with `winnow label "
            f"create {dataset.name} --schema labels.yaml`, or bring answers with `winnow label import`"
        )
    return pl.DataFrame([found[one] for one in sorted(found)], schema=ANSWERS, orient="row")


def text_hash(text: str) -> str:
    """What a text is known by: the first 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_answers(
    store: Store, version: Version, text_column: str, records: pl.DataFrame, answers: pl.DataFrame, reads: str
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The records that people answered, by id, as ``training.data.TrainingData`` takes them.

    Parameters
    ----------
    text_column : of the dataset.
    records : as ``curated.read_records`` gives them, in its order.
    answers : as of ``answers_to_learn``.

    Returns
    -------
    The records with ``hash`` and either ``spans`` or, their text a pair, ``label``; and how many answers were left out
    by reason.
    """
    joined = records.join(answers, on="id", how="left", maintain_order="left")
    if reads == "pairs":
        joined = _paired(store, version, text_column, records, joined)
    here = joined.drop_nulls("answer")
    now = pl.Series("hash", [None if one is None else text_hash(one) for one in here["text"]], dtype=pl.String)
    same = here.with_columns(now).filter(pl.col("hash").eq_missing(pl.col("text_hash")))
    left_out = {"not in the version": answers.height - here.height, "text changed": here.height - same.height}
    same = same.with_columns(_learned(same["answer"], reads)).drop("answer", "text_hash", "a", "b")
    return same.sort("id"), left_out


def _learned(answers: pl.Series, reads: str) -> list[pl.Series]:
    given = [json.loads(one) for one in answers]
    if reads == "pairs":
        return [pl.Series("label", given, dtype=pl.String)]
    return [pl.Series("label", [None] * len(given), dtype=pl.String), pl.Series("spans", given, dtype=SPANS)]


def _paired(
    store: Store, version: Version, text_column: str, records: pl.DataFrame, joined: pl.DataFrame
) -> pl.DataFrame:
    """The records with the pair that they now are, by the columns that were compared; null where they lack one."""
    texts: list[str | None] = [None] * joined.height
    for a, b in joined.select("a", "b").drop_nulls().unique(maintain_order=True).rows():
        pairs = pair_texts(store, version, text_column, Pairwise(a=a, b=b), records)
        for row in ((joined["a"] == a) & (joined["b"] == b)).fill_null(value=False).arg_true():
            texts[row] = pairs[row]
    return joined.with_columns(pl.Series("text", texts, dtype=pl.String))


def classes_of(records: pl.DataFrame, reads: str) -> list[str]:
    """Labels of spans that occur, or the answers that there are about a pair.

    Raises
    ------
    DataError : the answers teach nothing: no part is marked, or nothing is better than anything.
    """
    if records.is_empty():
        raise DataError(
            f"no record that stayed has an answer of a queue of task {TASK_OF[reads]} about its present text; label "
            "more, or loosen the cleaning recipe"
        )
    if reads == "pairs":
        if (records["label"] == TIE).all():
            raise DataError(f"all {records.height:,} answers are {TIE!r}; a preference is needed: label more pairs")
        return list(PREFERENCES)
    labels = records["spans"].explode(empty_as_null=True).struct.field("label").drop_nulls().unique().sort()
    if labels.is_empty():
        raise DataError(f"none of {records.height:,} answers marks a part of its text; label more")
    return labels.to_list()


def check_measurable(test: pl.DataFrame, reads: str) -> None:
    """Refuse a held-out slice by which no model could be told from another.

    Raises
    ------
    DataError : no part is marked there, or all pairs are ties.
    """
    what: tuple[Any, str] = (
        ((test["label"] != TIE).any(), "preference")
        if reads == "pairs"
        else ((test["spans"].list.len() > 0).any(), "marked part")
    )
    if not what[0]:
        raise DataError(
            f"none of {test.height} held-out records has a {what[1]}; label more, or raise test_share for more of them"
        )
