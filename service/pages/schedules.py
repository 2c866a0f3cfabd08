"""Schedules: what starts by itself, when, and what came of it; made, changed and switched off here."""

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from catalog.tables.datasets import Dataset
from catalog.tables.schedules import Firing, Request, Schedule
from curation.recipe import preset_names
from service.api.access import Catalogued, Curator
from service.pages.rendering import render
from training.presets import preset_names as training_presets
from workers.outcomes import Outcome, came_of
from workers.requests import waits_for
from workers.schedules import when

router = APIRouter(include_in_schema=False)

NUM_SHOWN = 200
NUM_FIRINGS = 30
NUM_REQUESTS = 50
NUM_REFUSED = 5


@router.get("/schedules")
def show_schedules(request: HttpRequest, catalog: Catalogued, _who: Curator) -> Response:
    """All schedules, what came of them lately, what waits for something else, and what was refused after it."""
    with catalog.read() as session:
        rows = [(one, when(one)) for one in session.scalars(select(Schedule).order_by(Schedule.name).limit(NUM_SHOWN))]
        waiting = [
            (one, waits_for(session, one) if one.state == "waiting" else one.reason or "")
            for state, number in (("waiting", NUM_REQUESTS), ("refused", NUM_REFUSED))
            for one in session.scalars(
                select(Request).where(Request.state == state).order_by(Request.created_at.desc()).limit(number)
            )
        ]
        return render(
            request,
            "schedules.html",
            schedules=rows,
            firings=_firings(session),
            requests=waiting,
            datasets=session.scalars(select(Dataset.name).order_by(Dataset.name).limit(NUM_SHOWN)).all(),
            jobs=[("clean", name) for name in preset_names()] + [("train", name) for name in training_presets()],
        )


def _firings(session: Session) -> list[tuple[Firing, str, Outcome]]:
    query = (
        select(Firing, Schedule.name)
        .join(Schedule, Schedule.id == Firing.schedule_id)
        .order_by(Firing.due_at.desc(), Firing.id)
        .limit(NUM_FIRINGS)
    )
    return [(firing, name, came_of(session, firing)) for firing, name in session.execute(query)]
