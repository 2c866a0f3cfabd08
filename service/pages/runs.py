"""A run, live: the server draws its present state, a script keeps it fresh."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from service.api.access import Catalogued, Curator
from service.api.runs import log_of, progress_of, units_of
from service.losses import arm_curves, loss_charts
from service.pages.rendering import render
from workers.engine import find_run
from workers.runs import recipe_of

router = APIRouter(prefix="/runs", include_in_schema=False)


@router.get("/{run_id}")
def show_run(request: Request, catalog: Catalogued, _who: Curator, run_id: str) -> Response:
    """One run."""
    with catalog.read() as session:
        # Commands print the first characters of an id.
        run = find_run(session, run_id)
        if run.id != run_id:
            return RedirectResponse(f"/runs/{run.id}", status_code=303)
        progress: dict[str, Any] = progress_of(session, run.id, catalog.now(session))
        return render(
            request,
            "run.html",
            run=run,
            recipe=recipe_of(run),
            dataset=session.get_one(Dataset, run.dataset_id),
            progress=progress,
            units=units_of(session, run.id),
            log=log_of(session, run.id),
            **_losses(session, run),
        )


@router.get("/{run_id}/losses")
def show_losses(request: Request, catalog: Catalogued, _who: Curator, run_id: str) -> Response:
    """The part of a run's page that shows how its arms learn, drawn anew."""
    with catalog.read() as session:
        return render(request, "losses.html", **_losses(session, find_run(session, run_id)))


def _losses(session: Session, run: Run) -> dict[str, Any]:
    curves = arm_curves(session, run)
    return {"curves": curves, "losses": loss_charts(curves)}
