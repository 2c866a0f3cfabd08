"""A dataset: its versions, the funnel of its last cleaning, what was quarantined."""

from dataclasses import dataclass

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Quarantined, Source, Version
from catalog.tables.engine import Run
from service.api.access import Catalogued, Curator
from service.api.datasets import dataset_named
from service.pages.rendering import render
from workers.whatif import JUDGING

router = APIRouter(prefix="/datasets", include_in_schema=False)

NUM_SHOWN = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Funnel:
    """What a cleaning run did with its records: how many each rule dropped, most first."""

    run: Run
    num_records: int
    num_kept: int
    dropped: list[tuple[str, int]]


def last_funnel(session: Session, dataset_id: str) -> Funnel | None:
    """The funnel of the dataset's last finished cleaning, from the verdicts themselves; None when there is none."""
    query = select(Run).where(Run.dataset_id == dataset_id, Run.kind.in_(JUDGING), Run.state == "done")
    run = session.scalar(query.order_by(Run.created_at.desc(), Run.id.desc()).limit(1))
    if run is None:
        return None
    counted = session.execute(
        select(Verdict.reason, func.count()).where(Verdict.run_id == run.id).group_by(Verdict.reason)
    ).all()
    kept = sum(count for reason, count in counted if reason is None)
    dropped = [(reason, count) for reason, count in counted if reason is not None]
    dropped.sort(key=lambda one: (-one[1], one[0]))
    return Funnel(run=run, num_records=sum(count for _, count in counted), num_kept=kept, dropped=dropped)


@router.get("/{name:path}")
def show_dataset(request: Request, catalog: Catalogued, _who: Curator, name: str) -> Response:
    """One dataset."""
    with catalog.read() as session:
        dataset = dataset_named(session, name)
        return render(
            request,
            "dataset.html",
            dataset=dataset,
            versions=_versions(session, dataset),
            funnel=last_funnel(session, dataset.id),
            sources=_sources(session, dataset),
            quarantine=_quarantine(session, dataset),
        )


def _versions(session: Session, dataset: Dataset) -> list[Version]:
    query = select(Version).where(Version.dataset_id == dataset.id).order_by(Version.number.desc()).limit(NUM_SHOWN)
    return list(session.scalars(query))


def _sources(session: Session, dataset: Dataset) -> list[Source]:
    query = select(Source).where(Source.dataset_id == dataset.id).order_by(Source.name, Source.id).limit(NUM_SHOWN)
    return list(session.scalars(query))


def _quarantine(session: Session, dataset: Dataset) -> list[tuple[str, int]]:
    count = func.count().label("num_rows")
    query = (
        select(Quarantined.reason, count)
        .join(Source, Source.id == Quarantined.source_id)
        .where(Source.dataset_id == dataset.id)
        .group_by(Quarantined.reason)
        .order_by(count.desc(), Quarantined.reason)
    )
    return [(reason, number) for reason, number in session.execute(query)]
