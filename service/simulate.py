"""Rehearse labeling: answer a real queue, over HTTP, from labels that were ingested but held back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError, TransientError
from catalog.store import Store
from catalog.tables.access import User
from catalog.tables.labeling import LabelQueue, LabelRound
from labeling.schema import LabelSchema, parse_schema
from labeling.simulation import CurvePoint, LearningCurve, area_under_curve, labels_saved
from service.auth import create_user, issue_token
from workers import curated, manifests
from workers.labeling import open_queue
from workers.pipelines.query import submit_query

HELD_OUT_SHARE = 0.2
ANNOTATOR = "oracle"
CONTROL = "random"
PREFIX = "rehearsal"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One strategy's queue in a rehearsal."""

    strategy: str
    queue_id: str
    run_id: str


def oracle_schema(labels: list[str]) -> LabelSchema:
    """A schema with one label for every class that was ingested.

    Raises
    ------
    DataError : fewer than two classes.
    """
    import yaml

    if len(labels) < 2:
        raise DataError(f"the labels are all {labels[0]!r}; a queue needs at least two classes to choose from")
    return parse_schema(yaml.safe_dump({"question": "Which label fits?", "labels": [{"name": one} for one in labels]}))


def oracle_token(catalog: Catalog) -> str:
    """A token of the simulated annotator, for this rehearsal."""
    with catalog.write() as session:
        now = catalog.now(session)
        user = session.scalars(select(User).where(User.name == ANNOTATOR)).one_or_none()
        user = user or create_user(session, now=now, name=ANNOTATOR, role="annotator", actor="command line")
        return issue_token(session, now=now, user_id=user.id, days=1, actor="command line")


def gold_labels(catalog: Catalog, dataset: str) -> dict[str, str]:
    """The ingested label of every record that stayed."""
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
    records = curated.read_records(Store.of(catalog.settings), version).drop_nulls("label")
    return dict(zip(records["id"].to_list(), records["label"].to_list(), strict=True))


def open_arms(
    catalog: Catalog,
    *,
    dataset: str,
    strategies: list[str],
    schema: LabelSchema,
    seeds: list[int],
    num_entries: int,
) -> list[Arm]:
    """One queue a strategy and seed, all over the same version; under one seed the same records are held out."""
    arms = []
    rehearsal = secrets.token_hex(3)
    for seed in seeds:
        for strategy in strategies:
            queue_id, run_id = open_queue(
                catalog,
                dataset=dataset,
                name=f"{PREFIX} {rehearsal} {strategy} {seed}",
                schema=schema,
                strategy=strategy,
                seed=seed,
                held_out_share=HELD_OUT_SHARE,
                # The rehearsal asks for every generation itself, at equal label counts in all arms.
                refresh_every=10**9,
                num_entries=num_entries,
                rehearsal=True,
                requested_by=ANNOTATOR,
            )
            arms.append(Arm(strategy=strategy, queue_id=queue_id, run_id=run_id))
    return arms


def answer_round(
    client: httpx.Client, arm: Arm, gold: dict[str, str], count: int, on_answer: Callable[[], None]
) -> int:
    """Lease and answer ``count`` tasks over HTTP; return how many there were."""
    for answered in range(count):
        served = _call(client, "POST", f"/api/v1/queues/{arm.queue_id}/next")
        task = served["task"]
        if task is None:
            return answered
        if task["record_id"] not in gold:
            _call(client, "POST", f"/api/v1/leases/{task['lease_id']}/skip", {"reason": "the oracle has no label"})
            continue
        body = {"key": secrets.token_urlsafe(12), "value": gold[task["record_id"]], "seconds_spent": 0.0}
        _call(client, "PUT", f"/api/v1/leases/{task['lease_id']}/annotation", body)
        on_answer()
    return count


def _call(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        answer = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise TransientError(
            f"the web service did not answer {method} {path} ({error}); run the command again"
        ) from error
    if answer.is_error:
        raise ConflictError(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
    return dict(answer.json()) if answer.content else {}


def next_generation(catalog: Catalog, arm: Arm, num_labels: int, num_entries: int) -> str:
    """Ask for a refit and a new choice; return the run's id."""
    with catalog.write() as session:
        return submit_query(
            session,
            now=catalog.now(session),
            queue_id=arm.queue_id,
            num_labels=num_labels,
            held_out_share=HELD_OUT_SHARE,
            num_entries=num_entries,
            requested_by=ANNOTATOR,
        )


def close(catalog: Catalog, arms: list[Arm]) -> None:
    """End the rehearsal's queues: nobody shall be served from them afterwards."""
    from labeling.queue import close_queue

    with catalog.write() as session:
        for arm in arms:
            close_queue(session, now=catalog.now(session), queue_id=arm.queue_id)


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
    """The curves of the last rehearsal that was measured to its end, or nothing."""
    queues = session.execute(
        select(LabelQueue.name, LabelQueue.strategy, LabelQueue.id)
        .where(LabelQueue.dataset_id == dataset_id, LabelQueue.rehearsal)
        .order_by(LabelQueue.created_at.desc(), LabelQueue.id)
    ).all()
    for wanted in dict.fromkeys(name.split()[1] for name, _, _ in queues):
        try:
            return curves(session, [(strategy, one) for name, strategy, one in queues if name.split()[1] == wanted])
        except DataError:
            continue
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
