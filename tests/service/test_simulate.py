"""Rehearsals: what they spend, where they stop, how they are gone on with."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables import metadata
from catalog.tables.engine import Run
from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelRound, LabelTask
from labeling.simulation import LearningCurve
from service import curves, simulate
from service.app import close_app, create_app
from service.cli.output import watch
from service.simulate import Arm, Plan, Stage
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import sentences
from training.split import is_test
from workers import curated, manifests
from workers.labeling import label_counts

BASE = "http://127.0.0.1:8765"
PLAN = Plan(dataset="tickets", strategy="margin", oracle="queue", rounds=3, per_round=6)


def clean_sparse(catalog: Catalog, folder: Path) -> None:
    """A cleaned dataset in which one record in four has a label."""
    rows: list[dict[str, Any]] = list(sentences(200, seed=3))
    clean_dataset(
        catalog, folder, [row if number % 4 == 0 else row | {"queue": None} for number, row in enumerate(rows)]
    )


@pytest.fixture(scope="module")
def cleaned_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with that dataset, to be copied."""
    folder = tmp_path_factory.mktemp("sparse")
    catalog = Catalog(Settings(home=folder / "home"))
    catalog.settings.home.mkdir()
    with catalog.write() as session:
        metadata.create_all(session.connection())
    clean_sparse(catalog, folder)
    catalog.close()
    return folder / "home"


@pytest.fixture
def sparse(cleaned_home: Path, tmp_path: Path) -> Iterator[Catalog]:
    """That dataset on SQLite."""
    home = shutil.copytree(cleaned_home, tmp_path / "home")
    catalog = Catalog(Settings(home=home))
    yield catalog
    catalog.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def sparse_on_each(
    request: pytest.FixtureRequest, tmp_path: Path, new_postgres: Callable[[], str]
) -> Iterator[Catalog]:
    """That dataset on each database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sparse")
        return
    catalog = Catalog(Settings(home=tmp_path, database_url=new_postgres()))
    clean_sparse(catalog, tmp_path)
    yield catalog
    catalog.close()


@contextmanager
def client_of(catalog: Catalog) -> Iterator[TestClient]:
    token = simulate.oracle_token(catalog)
    app = create_app(catalog.settings)
    try:
        yield TestClient(app, base_url=BASE, headers={"Authorization": f"Bearer {token}"})
    finally:
        close_app(app)


def rehearse(
    catalog: Catalog,
    plan: Plan = PLAN,
    *,
    anew: bool = False,
    on_answer: Callable[[], None] = lambda: None,
    before_fit: Callable[[str], None] = lambda _: None,
    stages: list[Stage] | None = None,
) -> list[Arm]:
    """What the command does, with the work of the workers done in this process."""
    gold = simulate.gold_labels(catalog, plan.dataset)
    spent = simulate.spends(plan, gold)
    name, finished = simulate.find_rehearsal(catalog, plan, spent, anew=anew)
    if finished is not None:
        return finished
    arms = simulate.open_arms(catalog, plan, name, simulate.oracle_schema(sorted(label_counts(catalog, plan.dataset))))

    def finish(run_id: str) -> None:
        before_fit(run_id)
        drain(catalog)
        with catalog.read() as session:
            run = session.get_one(Run, run_id)
            assert run.state == "done", run.reason

    told: list[Stage] = [] if stages is None else stages
    try:
        with client_of(catalog) as client:
            simulate.rehearse(catalog, client, arms, gold, spent, finish=finish, tell=told.append, on_answer=on_answer)
    finally:
        simulate.close(catalog, arms)
    return arms


def found(catalog: Catalog, arms: list[Arm]) -> dict[str, LearningCurve]:
    with catalog.read() as session:
        return curves.curves(session, [(arm.strategy, arm.queue_id) for arm in arms])


def figures(catalog: Catalog, arms: list[Arm]) -> dict[str, list[tuple[int, float]]]:
    """Labels and accuracy of every round: what must not differ between two ways of rehearsing the same."""
    return {
        name: [(one.num_labels, one.accuracy) for one in curve.points] for name, curve in found(catalog, arms).items()
    }


def askable(catalog: Catalog, seed: int = 0) -> dict[str, str]:
    """The labelled records that are not held out."""
    with catalog.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, "tickets"), "curated")
    records = curated.read_records(Store.of(catalog.settings), version).drop_nulls("label")
    records = records.filter(~is_test(records["id"], simulate.HELD_OUT_SHARE, seed))
    return dict(records.select("id", "label").iter_rows())


def stop_at(number: int) -> Callable[..., None]:
    """Ctrl-C at the so-maniest call."""
    calls = iter(range(1, number + 1))

    def stop(*_: object) -> None:
        if next(calls) == number:
            raise KeyboardInterrupt

    return stop


def test_rehearsal_counts_the_labels_it_spent_and_asks_only_where_there_is_one(sparse: Catalog) -> None:
    arms = rehearse(sparse)
    assert [arm.strategy for arm in arms] == ["margin", "random"]
    pool = askable(sparse)
    with sparse.read() as session:
        for arm in arms:
            answers = session.execute(
                select(LabelTask.record_id, Annotation.value)
                .join(Annotation, Annotation.task_id == LabelTask.id)
                .where(LabelTask.queue_id == arm.queue_id)
            ).all()
            assert len(answers) == 18
            assert dict(answers).items() <= pool.items()
            offered = session.scalars(select(LabelTask.record_id).where(LabelTask.queue_id == arm.queue_id))
            assert set(offered) <= pool.keys()
            states = session.scalars(select(LabelAssignment.state).where(LabelAssignment.queue_id == arm.queue_id))
            assert set(states) == {"accepted"}
            counts = select(LabelRound.num_labels).where(LabelRound.queue_id == arm.queue_id)
            assert list(session.scalars(counts.order_by(LabelRound.round))) == [6, 12, 18]
    assert {row["strategy"]: row["labels"] for row in curves.compare(found(sparse, arms))} == {
        "margin": 18,
        "random": 18,
    }


def test_rehearsal_ends_in_every_arm_where_the_smallest_pool_ends(sparse: Catalog) -> None:
    sizes = [len(askable(sparse, seed)) for seed in range(9)]
    seed = next(seed for seed in range(8) if sizes[seed] != sizes[seed + 1])
    plan = Plan(dataset="tickets", strategy="entropy", oracle="queue", rounds=4, per_round=20, seed=seed, repeats=2)
    pools = sizes[seed : seed + 2]
    assert 20 < min(pools) < 40
    stages: list[Stage] = []
    arms = rehearse(sparse, plan, stages=stages)
    assert len(arms) == 4
    assert [simulate.num_labels(sparse, arm) for arm in arms] == [min(pools)] * 4
    assert [one.num_labels for one in found(sparse, arms)["entropy"].points] == [20, min(pools)]
    assert {one.round for one in stages} == {1, 2}
    with pytest.raises(DataError, match="none of the 0 labelled records"):
        simulate.spends(plan, {})


def test_interrupted_rehearsal_goes_on_to_the_result_of_an_unbroken_one(sparse_on_each: Catalog) -> None:
    sparse = sparse_on_each
    unbroken = rehearse(sparse)
    answered: list[int] = []
    for stop in (3, 12, 6):
        with pytest.raises(KeyboardInterrupt):
            rehearse(sparse, anew=True, on_answer=stop_at(stop))
        answered.append(num_answers(sparse, unbroken))
    assert answered == [3, 15, 21]
    for stop in (5, 1):
        with pytest.raises(KeyboardInterrupt):
            rehearse(sparse, anew=True, before_fit=stop_at(stop))
        # The interruption closed the queues, so the fit that was under way fails.
        drain(sparse)
    arms = rehearse(sparse, anew=True)
    assert {arm.queue_id for arm in arms}.isdisjoint(arm.queue_id for arm in unbroken)
    assert figures(sparse, arms) == figures(sparse, unbroken)
    assert num_answers(sparse, unbroken) == 36
    with sparse.read() as session:
        assert session.scalar(select(func.count()).select_from(LabelQueue)) == 4
        assert set(session.scalars(select(LabelQueue.state))) == {"closed"}


def num_answers(catalog: Catalog, but: list[Arm]) -> int:
    """Answers in all queues but those of a rehearsal."""
    others = Annotation.queue_id.not_in([arm.queue_id for arm in but])
    with catalog.read() as session:
        return session.scalar(select(func.count()).select_from(Annotation).where(others)) or 0


def test_finished_rehearsal_is_not_rehearsed_again_unless_anew_and_another_is_another(sparse: Catalog) -> None:
    stages: list[Stage] = []
    first = rehearse(sparse, stages=stages)
    assert stages[-1] == Stage(round=3, strategy="random", seed=0, doing="fitting")
    num_told = len(stages)
    again = rehearse(sparse, stages=stages)
    assert [arm.queue_id for arm in again] == [arm.queue_id for arm in first]
    assert len(stages) == num_told
    anew = rehearse(sparse, anew=True)
    assert {arm.queue_id for arm in anew}.isdisjoint(arm.queue_id for arm in first)
    # The last one is the one to show.
    assert [arm.queue_id for arm in rehearse(sparse)] == [arm.queue_id for arm in anew]
    names = set()
    with sparse.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, "tickets"), "curated")
    for change in ({}, {"seed": 1}, {"rounds": 4}, {"per_round": 7}, {"repeats": 2}, {"strategy": "entropy"}):
        names.add(
            Plan(
                **{"dataset": "tickets", "strategy": "margin", "oracle": "queue", "rounds": 3, "per_round": 6} | change
            ).digest(version)
        )
    assert len(names) == 6


def test_report_shows_the_last_rehearsal_that_spent_the_same_in_every_arm(sparse: Catalog) -> None:
    with sparse.read() as session:
        dataset_id = manifests.find_dataset(session, "tickets").id
        assert curves.newest_rehearsal(session, dataset_id) == {}
    arms = rehearse(sparse)
    with pytest.raises(KeyboardInterrupt):
        rehearse(sparse, anew=True, before_fit=stop_at(6))
    with sparse.read() as session:
        shown = curves.newest_rehearsal(session, dataset_id)
    assert shown == found(sparse, arms)


def test_own_progress_is_shown_again_and_again_while_a_run_is_waited_for(sparse: Catalog) -> None:
    schema = simulate.oracle_schema(sorted(label_counts(sparse, "tickets")))
    arm, *_ = simulate.open_arms(sparse, PLAN, "waiting", schema)
    shown: list[str] = []

    def show() -> None:
        shown.append("line")
        if len(shown) == 3:
            drain(sparse)

    assert watch(sparse, arm.run_id, as_json=True, meanwhile=show).state == "done"
    assert len(shown) == 3


def test_rehearsal_is_kept_from_a_second_process_and_from_people(sparse: Catalog) -> None:
    with (
        simulate.alone(sparse, PLAN),
        pytest.raises(ConflictError, match="under way in another process"),
        simulate.alone(sparse, PLAN),
    ):
        raise AssertionError
    with simulate.alone(sparse, PLAN):
        arms = rehearse(sparse, Plan(dataset="tickets", strategy="random", oracle="queue", rounds=1, per_round=6))
    with client_of(sparse) as client, pytest.raises(ConflictError, match="closed"):
        simulate.answer_round(client, arms[0], {}, 1, lambda: None)
