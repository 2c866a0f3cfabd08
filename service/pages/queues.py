"""A queue for its curator: the learning curve and who answered what."""

import shlex

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from catalog.tables.access import User
from catalog.tables.labeling import LabelRound
from labeling import queue
from labeling.gold import gold_scores
from labeling.schema import LabelSchema
from service.api.access import Catalogued, Reviewer
from service.api.queues import queue_with_dataset
from service.api.reviews import strategy_of
from service.curves import CONTROL
from service.pages.charts import Chart, Series, line_chart
from service.pages.label import asked_by_page
from service.pages.rendering import render

router = APIRouter(prefix="/queues", include_in_schema=False)


def learning_curve(rounds: list[LabelRound]) -> Chart | None:
    """Held-out accuracy against labels spent, one line an arm, with its 95 % interval."""
    arms: dict[str, list[LabelRound]] = {}
    for one in sorted(rounds, key=lambda row: (row.arm == "random", row.arm, row.num_labels)):
        arms.setdefault(one.arm, []).append(one)
    return line_chart(
        [
            Series(
                name=arm,
                points=tuple((float(row.num_labels), row.accuracy) for row in rows),
                low=tuple(row.accuracy_low for row in rows),
                high=tuple(row.accuracy_high for row in rows),
                is_reference=arm == CONTROL,
            )
            for arm, rows in arms.items()
        ]
    )


@router.get("/{queue_id}")
def show_queue(request: Request, catalog: Catalogued, _who: Reviewer, queue_id: str) -> Response:
    """One queue."""
    with catalog.read() as session:
        found, dataset = queue_with_dataset(session, queue_id)
        rounds = list(
            session.scalars(
                select(LabelRound)
                .where(LabelRound.queue_id == queue_id)
                .order_by(LabelRound.num_labels, LabelRound.arm, LabelRound.round)
            )
        )
        progress = queue.progress(session, now=catalog.now(session), queue_id=queue_id)
        return render(
            request,
            "queue.html",
            queue=found,
            dataset=dataset,
            rounds=rounds,
            chart=learning_curve(rounds),
            progress=progress,
            strategy=strategy_of(session, queue_id),
            gold=gold_scores(session, queue_id=queue_id),
            names=_names(session),
            # One annotator agrees with nobody: the command would say only that.
            agreement_command=agreement_command(dataset.name, found.name) if len(progress.annotators) > 1 else None,
        )


@router.get("/{queue_id}/review")
def show_review_page(request: Request, catalog: Catalogued, _who: Reviewer, queue_id: str) -> Response:
    """Texts that annotators answered differently, one at a time."""
    with catalog.read() as session:
        found, dataset = queue_with_dataset(session, queue_id)
        schema = LabelSchema.from_json(found.schema)
        return render(
            request, "review.html", queue=found, dataset=dataset, schema=schema, schema_json=asked_by_page(schema)
        )


def agreement_command(dataset: str, queue_name: str) -> str:
    """What to type to see how far annotators agree, safe to paste into a shell.

    >>> agreement_command("my tickets", "labels")
    "winnow label agreement 'my tickets' labels"
    """
    return shlex.join(["winnow", "label", "agreement", dataset, queue_name])


def _names(session: Session) -> dict[str, str]:
    return {user.id: user.name for user in session.scalars(select(User))}
