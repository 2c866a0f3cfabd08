"""A run, live: the server draws its present state, a script keeps it fresh."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catalog.tables.datasets import Dataset
from service.api.access import Catalogued, Curator
from service.api.runs import log_of, progress_of, units_of
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
        )
