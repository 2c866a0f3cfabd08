"""Datasets and their versions."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError, nearest
from catalog.tables.datasets import Dataset, Version
from service.api.access import Catalogued, Curator, PageSize, number_cursor

router = APIRouter(prefix="/datasets", tags=["datasets"])

Name = Annotated[str, Path(description="name of a dataset", max_length=200)]


class DatasetOut(BaseModel):
    """A dataset."""

    id: str
    name: str
    text_column: str
    label_column: str | None
    created_at: datetime


class DatasetPage(BaseModel):
    """Some datasets by name; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[DatasetOut]
    next: str | None


class VersionOut(BaseModel):
    """A published version of a dataset."""

    id: str
    number: int
    kind: str
    run_id: str
    parent_id: str | None
    manifest_name: str
    manifest_sha256: str
    num_records: int
    summary: dict[str, Any]
    created_at: datetime


class VersionPage(BaseModel):
    """Some versions by number; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[VersionOut]
    next: str | None


def dataset_named(session: Session, name: str) -> Dataset:
    """The dataset with this name.

    Raises
    ------
    NotFoundError : there is none, with the nearest name that exists.
    """
    found = session.scalar(select(Dataset).where(Dataset.name == name))
    if found is None:
        known = session.scalars(select(Dataset.name).order_by(Dataset.name).limit(1000)).all()
        raise NotFoundError(f"no dataset named {name!r}; {nearest(name, known)}")
    return found


@router.get("", summary="List datasets")
def list_datasets(
    catalog: Catalogued,
    _who: Curator,
    after: Annotated[str, Query(max_length=200)] = "",
    limit: PageSize = 50,
) -> DatasetPage:
    """Datasets in the order of their names."""
    with catalog.read() as session:
        query = select(Dataset).where(Dataset.name > after).order_by(Dataset.name).limit(limit + 1)
        rows = session.scalars(query).all()
        items = [_dataset_out(row) for row in rows[:limit]]
    return DatasetPage(items=items, next=items[-1].name if len(rows) > limit else None)


@router.get("/{name:path}/versions", summary="List a dataset's versions")
def list_versions(
    catalog: Catalogued, _who: Curator, name: Name, after: str | None = None, limit: PageSize = 50
) -> VersionPage:
    """Versions in the order of their numbers."""
    with catalog.read() as session:
        dataset = dataset_named(session, name)
        query = (
            select(Version)
            .where(Version.dataset_id == dataset.id, Version.number > number_cursor(after))
            .order_by(Version.number)
            .limit(limit + 1)
        )
        rows = session.scalars(query).all()
        items = [VersionOut.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return VersionPage(items=items, next=str(items[-1].number) if len(rows) > limit else None)


@router.get("/{name:path}", summary="Read a dataset")
def read_dataset(catalog: Catalogued, _who: Curator, name: Name) -> DatasetOut:
    """One dataset."""
    with catalog.read() as session:
        return _dataset_out(dataset_named(session, name))


def _dataset_out(row: Dataset) -> DatasetOut:
    return DatasetOut.model_validate(row, from_attributes=True)
