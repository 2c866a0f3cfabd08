"""What rehearsals of labeling found: the learning curve of each strategy, beside random at the same spend."""

from statistics import fmean
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.tables.labeling import LabelQueue, LabelRound
from labeling.simulation import CurvePoint, LearningCurve, area_under_curve, labels_saved

CONTROL = "random"


def curves(session: Session, queues: list[tuple[str, str]]) -> dict[str, LearningCurve]:
    """The learning curve of every strategy: of one queue as measured, of several their mean.

    Parameters
    ----------
    queues : (strategy, queue id).

    Returns
    -------
    ``low`` and ``high`` of a point are the Wilson interval of one queue, or the lowest and highest of several.

    Raises
    ------
    DataError : a queue was never measured.
    """
    measured: dict[str, list[LearningCurve]] = {}
    for strategy, queue_id in queues:
        rounds = session.scalars(
            select(LabelRound).where(LabelRound.queue_id == queue_id).order_by(LabelRound.round)
        ).all()
        if not rounds:
            raise DataError(
                f"{strategy}: nothing was measured, all labels so far are of one class; spend more labels a round"
            )
        points = [
            CurvePoint(
                num_labels=one.num_labels,
                accuracy=one.accuracy,
                macro_f1=one.macro_f1,
                low=one.accuracy_low,
                high=one.accuracy_high,
                seconds=one.seconds,
            )
            for one in rounds
        ]
        measured.setdefault(strategy, []).append(LearningCurve(tuple(points)))
    return {strategy: mean_curve(found) for strategy, found in measured.items()}


def mean_curve(found: list[LearningCurve]) -> LearningCurve:
    """Point by point the mean of several curves, at the label counts that all of them have."""
    if len(found) == 1:
        return found[0]
    by_labels = [{point.num_labels: point for point in curve.points} for curve in found]
    common = sorted(set.intersection(*[set(points) for points in by_labels]))
    return LearningCurve(tuple(_mean_point([points[count] for points in by_labels]) for count in common))


def _mean_point(points: list[CurvePoint]) -> CurvePoint:
    return CurvePoint(
        num_labels=points[0].num_labels,
        accuracy=fmean(one.accuracy for one in points),
        macro_f1=fmean(one.macro_f1 for one in points),
        low=min(one.accuracy for one in points),
        high=max(one.accuracy for one in points),
        seconds=fmean(one.seconds for one in points),
    )


def newest_rehearsal(session: Session, dataset_id: str) -> dict[str, LearningCurve]:
    """The curves of the last rehearsal whose arms were all measured at the same spend, or nothing."""
    queues = session.execute(
        select(LabelQueue.name, LabelQueue.strategy, LabelQueue.id, func.max(LabelRound.num_labels))
        .outerjoin(LabelRound, LabelRound.queue_id == LabelQueue.id)
        .where(LabelQueue.dataset_id == dataset_id, LabelQueue.rehearsal)
        .group_by(LabelQueue.id, LabelQueue.name, LabelQueue.strategy, LabelQueue.created_at)
        .order_by(LabelQueue.created_at.desc(), LabelQueue.id)
    ).all()
    for wanted in dict.fromkeys(name.split()[1] for name, *_ in queues):
        arms = [(strategy, one, spent) for name, strategy, one, spent in queues if name.split()[1] == wanted]
        if len({spent for *_, spent in arms}) == 1 and arms[0][2] is not None:
            return curves(session, [(strategy, one) for strategy, one, _ in arms])
    return {}


def compare(found: dict[str, LearningCurve]) -> list[dict[str, Any]]:
    """Every arm's end point beside random's, with the labels that random needs to get as far."""
    control = found[CONTROL]
    rows = []
    for strategy, curve in found.items():
        saved = labels_saved(curve, control)
        rows.append(
            {
                "strategy": strategy,
                "labels": curve.final.num_labels,
                "accuracy": curve.final.accuracy,
                "low": curve.final.low,
                "high": curve.final.high,
                "macro_f1": curve.final.macro_f1,
                "area_under_curve": area_under_curve(curve) if len(curve.points) > 1 else None,
                "random_needs": saved.random_needs,
            }
        )
    return rows


def verdicts(found: dict[str, LearningCurve], rows: list[dict[str, Any]]) -> list[str]:
    """What every strategy was worth against random at the same spend, in one line each."""
    control = found[CONTROL]
    (random_row,) = [row for row in rows if row["strategy"] == CONTROL]
    by_labels = {point.num_labels: point.accuracy for point in control.points}
    lines = []
    for row in rows:
        if row["strategy"] == CONTROL:
            continue
        points = [point for point in found[row["strategy"]].points if point.num_labels in by_labels]
        ahead = sum(point.accuracy > by_labels[point.num_labels] for point in points)
        line = (
            f"{row['strategy']}: held-out accuracy {row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f}) with "
            f"{row['labels']} labels, random {random_row['accuracy']:.3f} ({random_row['low']:.3f} to "
            f"{random_row['high']:.3f}); ahead at {ahead} of {len(points)} label counts"
        )
        if row["area_under_curve"] is not None and random_row["area_under_curve"] is not None:
            line += f", area under the curve {row['area_under_curve']:.3f} against {random_row['area_under_curve']:.3f}"
        lines.append(line)
    return lines
