"""Rehearse labeling: answer a real queue, over HTTP, from labels that were ingested but held back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError, ServiceError
from catalog.store import Store
from catalog.tables.access import User
from catalog.tables.labeling import LabelRound
from labeling.schema import LabelSchema, parse_schema
from labeling.simulation import CurvePoint, LearningCurve, area_under_curve, labels_saved
from service.auth import create_user, issue_token
from workers import curated, manifests
from workers.labeling import open_queue
from workers.pipelines.query import submit_query

HELD_OUT_SHARE = 0.2
ANNOTATOR = "oracle"
CONTROL = "random"


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
    catalog: Catalog, *, dataset: str, strategies: list[str], schema: LabelSchema, seed: int, num_entries: int
) -> list[Arm]:
    """One queue a strategy, all over the same version with the same held-out records."""
    arms = []
    for strategy in strategies:
        queue_id, run_id = open_queue(
            catalog,
            dataset=dataset,
            name=f"rehearsal {strategy} {secrets.token_hex(3)}",
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
    answer = client.request(method, path, json=body)
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


def curves(catalog: Catalog, arms: list[Arm]) -> dict[str, LearningCurve]:
    """The learning curve of every arm that has one.

    Raises
    ------
    ServiceError : an arm was never measured.
    """
    found = {}
    with catalog.read() as session:
        for arm in arms:
            rounds = session.scalars(
                select(LabelRound).where(LabelRound.queue_id == arm.queue_id).order_by(LabelRound.round)
            ).all()
            if not rounds:
                raise ServiceError(
                    f"{arm.strategy}: nothing was measured; all labels so far are of one class: raise --per-round"
                )
            found[arm.strategy] = LearningCurve(
                tuple(
                    CurvePoint(
                        num_labels=one.num_labels,
                        accuracy=one.accuracy,
                        macro_f1=one.macro_f1,
                        low=one.accuracy_low,
                        high=one.accuracy_high,
                        seconds=one.seconds,
                    )
                    for one in rounds
                )
            )
    return found


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
