"""A run, live: the server draws its present state, a script keeps it fresh."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from service.api.access import Catalogued, Curator
from service.api.runs import log_of, progress_of, units_of
from service.pages.rendering import render

router = APIRouter(prefix="/runs", include_in_schema=False)


@router.get("/{run_id}")
def show_run(request: Request, catalog: Catalogued, _who: Curator, run_id: str) -> Response:
    """One run."""
    with catalog.read() as session:
        progress: dict[str, Any] = progress_of(session, run_id, catalog.now(session))
        run = session.get_one(Run, run_id)
        dataset = session.get_one(Dataset, run.dataset_id)
        units = units_of(session, run_id)
        log = log_of(session, run_id)
        return render(request, "run.html", run=run, dataset=dataset, progress=progress, units=units, log=log)
