"""The consensus, not the majority, is what training and exports take; with its confidence."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalog.database import Catalog
from catalog.errors import DataError
from catalog.store import Store
from catalog.tables.datasets import Version
from catalog.tables.labeling import LabelQueue
from labeling import queue
from labeling.annotations import Annotations
from tests.labeling.conftest import open_desk
from tests.labeling.test_quality import always_positive, say, truth
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import LABELS, sentences
from tests.workers.test_labeling import SCHEMA
from workers import curated
from workers.annotated import class_labels
from workers.held_out import held_out_proba
from workers.labeling import open_queue
from workers.learnable import annotated_labels


def test_training_and_exports_take_the_consensus_with_its_confidence(database: Catalog) -> None:
    desk = open_desk(database, overlap=4)
    desk.publish(*[f"{number:03}" for number in range(30)])
    for who in ("지민", "영희"):
        say(desk, who, truth, times=30)
    for who in ("철수", "민수"):
        say(desk, who, always_positive, times=30)
    with database.read() as session:
        majority = queue.current_labels(session, queue_id=desk.queue_id)
        trained = annotated_labels(session, desk.dataset_id)
        exported = class_labels(session, desk.dataset_id)
    # Two against two: by the smallest name, everything would be positive.
    assert {one.value for one in majority} == {"긍정"}
    assert trained == {f"{number:03}": truth(f"{number:03}") for number in range(30)}
    assert {record: one.value for record, one in exported.items()} == trained
    assert min(one.agreement for one in exported.values()) > 0.9
    assert {one.agreement for one in majority} == {0.5, 1.0}


def test_a_classifier_that_never_saw_a_record_says_what_it_thinks(database: Catalog, tmp_path: Path) -> None:
    clean_dataset(database, tmp_path, sentences(60, seed=3))
    queue_id, _, _ = open_queue(database, dataset="tickets", name="q", schema=SCHEMA, strategy="random")
    drain(database)
    store = Store.of(database.settings)
    with database.read() as session:
        version = session.get_one(Version, session.get_one(LabelQueue, queue_id).version_id)
    records = curated.read_records(store, version)
    # The answer tells the language, but for that to the first record, which is wrong.
    gold = {
        record: "환불" if any("가" <= char <= "힣" for char in text) else "hardware"
        for record, text in records.select("id", "text").iter_rows()
    }
    first = records["id"].to_list()[0]
    wrong = "hardware" if gold[first] == "환불" else "환불"
    rows = [(one, "a", wrong if one == first else gold[one]) for one in records["id"]]
    given = Annotations.from_frame(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"), LABELS)
    proba = held_out_proba(store, version, given)
    assert proba.shape == (records.height, len(LABELS))
    assert proba.sum(axis=1) == pytest.approx(np.ones(records.height))
    assert proba.min() > 0
    thought = {item: LABELS[one] for item, one in zip(given.items, proba.argmax(axis=1), strict=True)}
    assert np.mean([thought[one] == gold[one] for one in thought]) > 0.8
    # Fitted with its own answer it would repeat the mistake.
    assert thought[first] == gold[first]
    same = Annotations.from_frame(
        pl.DataFrame([(one, "a", LABELS[0]) for one in gold], schema=["item", "annotator", "label"], orient="row"),
        LABELS,
    )
    with pytest.raises(DataError, match="a model needs labels of at least two classes"):
        held_out_proba(store, version, same)
