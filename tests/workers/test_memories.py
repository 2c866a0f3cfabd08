"""A curated version's vectors and labels as a memory."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from catalog.errors import DataError
from catalog.store import Store
from catalog.tables.datasets import Version
from curation.recipe import Recipe
from tests.cli.corpus import records
from tests.workers.building import drain
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from training.retrieval.memory import Memory
from workers import curated
from workers.memories import remember_version
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest


def test_labelled_records_of_the_classes_are_remembered_with_the_catalog_s_vectors(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    rows = records()[:60]
    rows = [one | {"queue": ""} if number % 5 == 0 else one for number, one in enumerate(rows)]
    path = write_rows(tmp_path / "tickets.jsonl", rows)
    submit_ingest(catalog, dataset="tickets", paths=[path], text_column="body", label_column="queue")
    drain(catalog)
    submit_clean(catalog, dataset="tickets", recipe=Recipe(name="small", exact=False))
    drain(catalog)
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = session.scalars(select(Version).where(Version.kind == "curated")).one()
        session.expunge(version)
    frame, vectors = curated.read_records(store, version), curated.read_embeddings(store, version)
    *classes, left_out = sorted(set(frame["label"]) - {None, ""}, reverse=True)
    written = remember_version(store, version, classes, tmp_path / "memory")
    kept = [row for row, label in enumerate(frame["label"]) if label in classes]
    assert 0 < len(kept) < len(frame)
    assert np.array_equal(written.keys, vectors[kept])
    assert [classes[one] for one in written.values[:, 0]] == frame["label"].gather(kept).to_list()
    assert written.source == f"encoder {version.summary['encoder']}"
    assert Memory.open(tmp_path / "memory").source == written.source
    assert left_out not in classes
    with pytest.raises(DataError, match=rf"none of {len(frame)} records is labelled nowhere; label some"):
        remember_version(store, version, ["nowhere"], tmp_path / "other")
