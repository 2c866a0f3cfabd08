"""A queue for its curator: the learning curve, how far annotators agree, and how good each of them is."""

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from catalog.tables.access import User
from catalog.tables.labeling import LabelRound
from labeling import queue
from labeling.gold_scores import gold_scores
from labeling.results import Throughput, throughput
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


def pace_chart(pace: Throughput) -> Chart | None:
    """Answers by hour over the last day, or None where there were none."""
    if not any(pace.per_hour):
        return None
    points = tuple((float(hour - len(pace.per_hour)), float(count)) for hour, count in enumerate(pace.per_hour))
    return line_chart([Series(name="answers", points=points)], unit="hours from now")


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
        now = catalog.now(session)
        progress = queue.progress(session, now=now, queue_id=queue_id)
        pace = throughput(session, now=now, queue_id=queue_id)
        gold = {one.annotator_id: one for one in gold_scores(session, queue_id=queue_id)}
        names = _names(session)
        people = {one: names.get(one, one) for one in {*progress.annotators, *gold}}
        return render(
            request,
            "queue.html",
            queue=found,
            dataset=dataset,
            rounds=rounds,
            chart=learning_curve(rounds),
            progress=progress,
            pace=pace,
            pace_chart=pace_chart(pace),
            strategy=strategy_of(session, queue_id),
            gold=gold,
            people=dict(sorted(people.items(), key=lambda one: (one[1], one[0]))),
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


def _names(session: Session) -> dict[str, str]:
    return {user.id: user.name for user in session.scalars(select(User))}
