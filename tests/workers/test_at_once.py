"""Requests that come in the same moment, to one dataset that nobody has made yet."""

from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.tables.datasets import Dataset, Source
from tests.workers.building import at_once
from tests.workers.corpus import write_files
from workers.pipelines.ingest import submit_ingest

ROUNDS = 10


def ask(catalog: Catalog, dataset: str, paths: list[str]) -> str:
    run_id = submit_ingest(catalog, dataset=dataset, paths=paths, text_column="body", label_column=None)[0]
    assert run_id is not None
    return run_id


def test_the_same_files_into_a_new_dataset_are_one_run(database: Catalog, tmp_path: Path) -> None:
    paths = write_files(tmp_path / "files", 2, 3)
    for number in range(ROUNDS):
        first, second = at_once(*[partial(ask, database, f"same-{number}", paths)] * 2)
        assert first == second


def test_files_that_overlap_are_two_runs_in_one_dataset(database: Catalog, tmp_path: Path) -> None:
    one, both, other = write_files(tmp_path / "files", 3, 3)
    for number in range(ROUNDS):
        name = f"overlap-{number}"
        first, second = at_once(partial(ask, database, name, [one, both]), partial(ask, database, name, [both, other]))
        assert first != second
        with database.read() as session:
            assert session.scalar(select(func.count()).select_from(Dataset).where(Dataset.name == name)) == 1
            sources = select(func.count()).select_from(Source).join(Dataset, Dataset.id == Source.dataset_id)
            assert session.scalar(sources.where(Dataset.name == name)) == 3
