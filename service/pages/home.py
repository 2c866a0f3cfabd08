"""The first page: datasets, the last runs, the open queues. Annotators see their queues."""

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue, LabelTask
from service.api.access import Anyone, Catalogued
from service.pages.rendering import render

router = APIRouter(include_in_schema=False)

NUM_SHOWN = 100
NUM_RUNS_SHOWN = 12


@router.get("/")
def home(request: Request, catalog: Catalogued, who: Anyone) -> Response:
    """What there is, by role."""
    sees_data = who.role not in ("annotator", "reviewer")
    with catalog.read() as session:
        return render(
            request,
            "home.html",
            datasets=_datasets(session) if sees_data else [],
            runs=_runs(session) if sees_data else [],
            queues=_open_queues(session, with_rehearsals=sees_data),
        )


def _datasets(session: Session) -> list[tuple[Dataset, Version | None]]:
    latest = (
        select(Version.dataset_id, func.max(Version.number).label("number")).group_by(Version.dataset_id).subquery()
    )
    query = (
        select(Dataset, Version)
        .outerjoin(latest, latest.c.dataset_id == Dataset.id)
        .outerjoin(Version, (Version.dataset_id == Dataset.id) & (Version.number == latest.c.number))
        .order_by(Dataset.name)
        .limit(NUM_SHOWN)
    )
    return [(dataset, version) for dataset, version in session.execute(query)]


def _runs(session: Session) -> list[tuple[Run, str]]:
    query = (
        select(Run, Dataset.name)
        .join(Dataset, Dataset.id == Run.dataset_id)
        .order_by(Run.created_at.desc(), Run.id.desc())
        .limit(NUM_RUNS_SHOWN)
    )
    return [(run, name) for run, name in session.execute(query)]


def _open_queues(session: Session, *, with_rehearsals: bool) -> list[tuple[LabelQueue, str, int]]:
    done = (
        select(LabelTask.queue_id, func.count().label("num_done"))
        .where(LabelTask.done)
        .group_by(LabelTask.queue_id)
        .subquery()
    )
    query = (
        select(LabelQueue, Dataset.name, func.coalesce(done.c.num_done, 0))
        .join(Dataset, Dataset.id == LabelQueue.dataset_id)
        .outerjoin(done, done.c.queue_id == LabelQueue.id)
        .where(LabelQueue.state == "open")
        .order_by(LabelQueue.created_at.desc(), LabelQueue.id)
        .limit(NUM_SHOWN)
    )
    if not with_rehearsals:
        query = query.where(LabelQueue.rehearsal.is_(False))
    return [(queue, name, num_done) for queue, name, num_done in session.execute(query)]
