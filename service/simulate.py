"""Rehearse labeling: answer a real queue, over HTTP, from labels that were ingested but held back."""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError, TransientError
from catalog.store import Store
from catalog.tables.access import User
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue, LabelTask
from labeling.schema import LabelSchema, parse_schema
from service.auth import create_user, issue_token
from service.curves import CONTROL
from training.split import is_test
from workers import curated, manifests, runs
from workers.labeling import open_queue
from workers.pipelines.query import request_key, submit_query

HELD_OUT_SHARE = 0.2
ANNOTATOR = "oracle"
PREFIX = "rehearsal"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is rehearsed. The same plan over the same version is the same rehearsal, so it can be gone on with.

    Parameters
    ----------
    oracle : column whose labels answer.
    repeats : seeds to average over, from ``seed`` up.
    """

    dataset: str
    strategy: str
    oracle: str
    rounds: int
    per_round: int
    seed: int = 0
    repeats: int = 1

    @property
    def arms(self) -> list[tuple[str, int]]:
        """Strategy and seed of every arm: the one that is rehearsed and random, under each seed."""
        strategies = dict.fromkeys([self.strategy, CONTROL])
        return [(strategy, seed) for seed in self.seeds for strategy in strategies]

    @property
    def seeds(self) -> list[int]:
        """Each decides what is held out, and everything random."""
        return [self.seed + number for number in range(self.repeats)]

    def digest(self, version: Version) -> str:
        """Names the rehearsal in the names of its queues."""
        told = [self.strategy, self.oracle, self.rounds, self.per_round, self.seed, self.repeats, HELD_OUT_SHARE]
        return runs.digest({"version": version.id, "plan": told})[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One strategy's queue in a rehearsal."""

    strategy: str
    seed: int
    queue_id: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where a rehearsal is: which arm of which round, and what is being done."""

    round: int
    strategy: str
    seed: int
    doing: str


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
    records = curated.read_records(Store.of(catalog.settings), _version(catalog, dataset)).drop_nulls("label")
    return dict(zip(records["id"].to_list(), records["label"].to_list(), strict=True))


def _version(catalog: Catalog, dataset: str) -> Version:
    with catalog.read() as session:
        return manifests.require_version(session, manifests.find_dataset(session, dataset), "curated")


def spends(plan: Plan, gold: dict[str, str]) -> list[int]:
    """Labels spent after each round, in every arm alike: fewer rounds where the labelled records do not last.

    Raises
    ------
    DataError : every labelled record is held out.
    """
    ids = pl.Series("id", list(gold), dtype=pl.String)
    pool = min(len(ids) - int(is_test(ids, HELD_OUT_SHARE, seed).sum()) for seed in plan.seeds)
    if pool == 0:
        raise DataError(f"none of the {len(ids)} labelled records of {plan.dataset!r} is left to ask about; label more")
    counts = [min(number * plan.per_round, pool) for number in range(1, plan.rounds + 1)]
    return list(dict.fromkeys(counts))


@contextmanager
def alone(catalog: Catalog, plan: Plan) -> Iterator[None]:
    """Keep a second process of this machine from the same rehearsal: both would spend its labels.

    Raises
    ------
    ConflictError : it is under way.
    """
    folder = catalog.settings.home / "rehearsals"
    folder.mkdir(exist_ok=True)
    name = f"{plan.digest(_version(catalog, plan.dataset))}.lock"
    file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(file, plan.dataset)
        yield
    finally:
        os.close(file)


def _lock(file: int, dataset: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConflictError(
            f"this rehearsal of {dataset!r} is under way in another process; wait for it, or use another --seed"
        ) from error


def find_rehearsal(catalog: Catalog, plan: Plan, spent: list[int], *, anew: bool) -> tuple[str, list[Arm] | None]:
    """The name of the rehearsal to go on with, and its arms when it is finished.

    Parameters
    ----------
    spent : from ``spends``.
    anew : leave a finished one alone and begin another; one that was interrupted is gone on with all the same.
    """
    version = _version(catalog, plan.dataset)
    digest = plan.digest(version)
    with catalog.read() as session:
        names = session.scalars(
            select(LabelQueue.name).where(
                LabelQueue.dataset_id == version.dataset_id,
                LabelQueue.rehearsal,
                LabelQueue.name.startswith(f"{PREFIX} {digest}"),
            )
        )
        tries = {int(name.split()[1].partition("-")[2] or 1) for name in names}
        newest = max(tries, default=1)
        arms = _finished_arms(session, version.dataset_id, plan, _rehearsal_name(digest, newest), spent[-1])
    if arms is not None and anew:
        return _rehearsal_name(digest, newest + 1), None
    return _rehearsal_name(digest, newest), arms


def _rehearsal_name(digest: str, number: int) -> str:
    return digest if number == 1 else f"{digest}-{number}"


def _queue_name(rehearsal: str, strategy: str, seed: int) -> str:
    return f"{PREFIX} {rehearsal} {strategy} {seed}"


def _finished_arms(session: Session, dataset_id: str, plan: Plan, rehearsal: str, num_labels: int) -> list[Arm] | None:
    arms = []
    for strategy, seed in plan.arms:
        named = LabelQueue.name == _queue_name(rehearsal, strategy, seed)
        queue_id = session.scalar(select(LabelQueue.id).where(LabelQueue.dataset_id == dataset_id, named))
        key = request_key(queue_id or "", num_labels=num_labels)
        run_id = session.scalar(select(Run.id).where(Run.idempotency_key == key, Run.state == "done"))
        if queue_id is None or run_id is None:
            return None
        arms.append(Arm(strategy=strategy, seed=seed, queue_id=queue_id, run_id=run_id))
    return arms


def open_arms(catalog: Catalog, plan: Plan, rehearsal: str, schema: LabelSchema) -> list[Arm]:
    """One queue a strategy and seed, all over the same version; under one seed the same records are held out.

    Those that an earlier try left are taken up again.
    """
    arms = []
    for strategy, seed in plan.arms:
        queue_id, run_id, _ = open_queue(
            catalog,
            dataset=plan.dataset,
            name=_queue_name(rehearsal, strategy, seed),
            schema=schema,
            strategy=strategy,
            seed=seed,
            held_out_share=HELD_OUT_SHARE,
            # The rehearsal asks for every generation itself, at equal label counts in all arms.
            refresh_every=10**9,
            num_entries=plan.per_round,
            rehearsal=True,
            requested_by=ANNOTATOR,
        )
        arms.append(Arm(strategy=strategy, seed=seed, queue_id=queue_id, run_id=run_id))
    return arms


def num_labels(catalog: Catalog, arm: Arm) -> int:
    """Labels that an arm has spent."""
    done = select(func.count()).where(LabelTask.queue_id == arm.queue_id, LabelTask.done.is_(True))
    with catalog.read() as session:
        return session.scalar(done) or 0


def rehearse(
    catalog: Catalog,
    client: httpx.Client,
    arms: list[Arm],
    gold: dict[str, str],
    spent: list[int],
    *,
    finish: Callable[[str], object],
    tell: Callable[[Stage], None],
    on_answer: Callable[[], None],
) -> None:
    """Spend the labels of every round in every arm and have the model refitted; what is done already is passed over.

    Parameters
    ----------
    client : logged in as the oracle.
    spent : from ``spends``.
    finish : wait for a run, by its id.
    """
    for arm in arms:
        tell(Stage(round=1, strategy=arm.strategy, seed=arm.seed, doing="choosing"))
        finish(arm.run_id)
    for number, target in enumerate(spent, 1):
        for arm in arms:
            tell(Stage(round=number, strategy=arm.strategy, seed=arm.seed, doing="answering"))
            answer_round(client, arm, gold, target - num_labels(catalog, arm), on_answer)
            tell(Stage(round=number, strategy=arm.strategy, seed=arm.seed, doing="fitting"))
            finish(next_generation(catalog, arm, target, spent[0]))


def answer_round(
    client: httpx.Client, arm: Arm, gold: dict[str, str], count: int, on_answer: Callable[[], None]
) -> None:
    """Lease and answer ``count`` tasks over HTTP.

    Raises
    ------
    ConflictError : there were fewer; every arm must spend the same.
    """
    for number in range(count):
        served = _call(client, "POST", f"/api/v1/queues/{arm.queue_id}/next")
        task = served["task"]
        if task is None:
            raise ConflictError(
                f"{arm.strategy}: after {number} of {count} answers there was no task ({served['reason']}); "
                "leave the rehearsal's queues to its program, and run the command again"
            )
        body = {"key": secrets.token_urlsafe(12), "value": gold[task["record_id"]], "seconds_spent": 0.0}
        _call(client, "PUT", f"/api/v1/leases/{task['lease_id']}/annotation", body)
        on_answer()


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
    """Ask for a refit and a new choice; return the run's id. Asked again it is the same run."""
    with catalog.write() as session:
        run_id, _ = submit_query(
            session,
            now=catalog.now(session),
            queue_id=arm.queue_id,
            num_labels=num_labels,
            num_entries=num_entries,
            requested_by=ANNOTATOR,
        )
        return run_id


def close(catalog: Catalog, arms: list[Arm]) -> None:
    """Close the rehearsal's queues: nobody shall be served from them until it is gone on with."""
    from labeling.queue import close_queue

    with catalog.write() as session:
        for arm in arms:
            close_queue(session, now=catalog.now(session), queue_id=arm.queue_id)
