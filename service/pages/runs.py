"""A run, live: the server draws its present state, a script keeps it fresh."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run, Unit
from catalog.tables.training import Evaluation
from service.api.access import Catalogued, Curator
from service.api.runs import log_of, progress_of, units_of
from service.losses import arm_curves, loss_charts
from service.outcome import Outcome, outcome_of
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
            recipe=recipe_of(run),
            progress=progress,
            units=units_of(session, run.id),
            log=log_of(session, run.id),
            **_training(session, run),
        )


@router.get("/{run_id}/losses")
def show_losses(request: Request, catalog: Catalogued, _who: Curator, run_id: str) -> Response:
    """The part of a run's page that shows how its arms learn and what came of it, drawn anew."""
    with catalog.read() as session:
        return render(request, "losses.html", **_training(session, find_run(session, run_id)))


def _training(session: Session, run: Run) -> dict[str, Any]:
    curves = arm_curves(session, run)
    fitted = select(Unit).where(Unit.run_id == run.id, Unit.stage_name == "fit", Unit.state == "done")
    return {
        "run": run,
        "dataset": session.get_one(Dataset, run.dataset_id),
        "curves": curves,
        "losses": loss_charts(curves),
        "outcome": _outcome(session, run),
        "models": [unit.payload["arm"] for unit in session.scalars(fitted.order_by(Unit.position))] if curves else [],
    }


def _outcome(session: Session, run: Run) -> Outcome | None:
    """What a training measured, of each classifier the few columns that a page has room for; None before its end."""
    recipe, result = run.config.get("recipe"), run.result
    if run.kind != "train" or not result or not isinstance(recipe, dict):
        return None
    found = outcome_of(result, asked=recipe.get("compare") == "controls")
    if "variants" not in result:
        return found
    header = ("arm", "variant", "accuracy", "low", "high", "macro F1", "MB")
    return replace(found, header=header, rows=list(_rows(session, run)))


def _rows(session: Session, run: Run) -> Iterator[tuple[Any, ...]]:
    """The variants as they were measured, each with the interval of its accuracy."""
    stored = {
        (one.arm, one.variant): one for one in session.scalars(select(Evaluation).where(Evaluation.run_id == run.id))
    }
    for told in (run.result or {})["variants"]:
        one = stored[told["arm"], told["variant"]]
        shown = "as trained" if one.variant == "none" else one.variant
        low, high = (one.detail[f"accuracy_{end}"] for end in ("low", "high"))
        yield (
            one.arm,
            shown,
            *(round(value, 4) for value in (one.accuracy, low, high, one.macro_f1)),
            round(one.size_bytes / 1e6, 2),
        )
